"""What figures share.

``style`` holds palette, fresh axes and legends; ``ticks`` the axes of K and of student sizes; ``draw`` a line with its
intervals and the value axis; ``labels`` texts beside points; ``panels`` a grid of axes;
``tables`` whose rows of a table are drawn; ``save`` writes PNG and SVG.
"""
