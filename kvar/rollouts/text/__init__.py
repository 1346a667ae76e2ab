"""From text to token ids: prompts, targets and conversations."""
