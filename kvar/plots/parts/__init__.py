"""What figures share.

``style`` holds palette, fresh axes and legends; ``ticks`` the axes of K and of student sizes; ``draw`` a line with its
intervals and the value axis; ``labels`` texts beside points; ``ringed`` a statistic against K with the best one ringed;
``panels`` a grid of axes; ``tables`` checks of what is to be drawn; ``save`` writes PNG and SVG.
"""
