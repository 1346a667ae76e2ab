"""The responses of an optimiser step: sampled by the student, decoded by the teacher, or the data's."""
