"""Sends alerts as mail, through the mail server that the settings name."""

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from karez.core.alerts import Alert, AlertSender, NotDelivered

TIMEOUT_S = 15.0
_LINE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail(AlertSender):
    """Sends through one server."""

    server: str
    """`smtp://USER:PASSWORD@HOST:587` (STARTTLS where the server offers it), or `smtps://`; empty:
    there is none."""
    sender: str
    """Address in From."""

    @override
    def send(self, alert: Alert, to: str, secret: str) -> None:
        if not self.server:
            raise NotDelivered("no mail server is set: smtp = smtp://HOST in karez.toml")
        message = EmailMessage()
        message["From"], message["To"] = self.sender, to
        message["Subject"] = alert.text.splitlines()[0][:_LINE]
        message["Message-ID"] = f"<{alert.id}@karez>"  # a mail that is sent twice is shown once
        rows = [alert.text, "", f"rule: {alert.rule} of project {alert.project}"]
        rows += [f"{name}: {value}" for name, value in alert.facts.items()]
        message.set_content("\n".join(rows))
        try:
            self._send(message)
        except (OSError, smtplib.SMTPException) as error:
            raise NotDelivered(f"the mail server: {error or type(error).__name__}") from error

    def _send(self, message: EmailMessage) -> None:
        parts = urlsplit(self.server)
        host, context = parts.hostname or "", ssl.create_default_context()
        if parts.scheme == "smtps":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                host, parts.port or 465, timeout=TIMEOUT_S, context=context
            )
        else:
            client = smtplib.SMTP(host, parts.port or 25, timeout=TIMEOUT_S)
        with client:
            client.ehlo()
            if parts.scheme == "smtp" and client.has_extn("starttls"):
                client.starttls(context=context)
                client.ehlo()
            if parts.username:
                client.login(unquote(parts.username), unquote(parts.password or ""))
            client.send_message(message)
