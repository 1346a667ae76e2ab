"""The responses that an optimiser step trains on: sampled by the student, decoded by the teacher, or the data's."""
