"""kvar: K-step returns, their variance and their bias in RL-based knowledge distillation."""
