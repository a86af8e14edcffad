"""Two runs of a training side by side: what each module computed, and where they part."""
