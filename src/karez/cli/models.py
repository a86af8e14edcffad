"""`karez models`: those of the cloud, and what this machine can say of any model."""

from karez.cli.offline.model_matrix import check_model, show_matrix
from karez.cli.remote.artifacts import models

models.command("matrix")(show_matrix)
models.command("check")(check_model)
APPS = {"models": models}
