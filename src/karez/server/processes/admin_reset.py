"""`karezd reset-admin`: a new admin key for the owner of the state folder; the cloud may run."""

from karez.core.settings import Settings
from karez.server.home import Home
from karez.server.processes.report import Report
from karez.server.processes.settings_file import existing_home
from karez.server.wiring import reset_admin


def run_reset_admin(settings: Settings, report: Report) -> None:
    """Make the key and write its file. Raises BadRequest if there is no cloud."""
    file = reset_admin(settings, Home(path=existing_home(settings)))
    report({"done": {"file": str(file)}})
