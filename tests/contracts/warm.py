"""What a nursery of these tests has imported: all that a rank here needs, and no more."""

import karez.training.worker.session  # noqa: F401 - as above
