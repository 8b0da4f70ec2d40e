"""agent: the command that is a daemon."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import click

from moorline.cli.common import Common, common
from moorline.cli.name_completion import FilePath
from moorline.cli.output import say
from moorline.config import Settings
from moorline.errors import Refused


@click.command()
@click.option("--socket", metavar="PATH", help="Where to listen; default: STATE_DIR/agent.sock.")
@click.option(
    "--metrics", metavar="127.0.0.1:PORT", help="Where Prometheus may collect, besides the socket."
)
@click.option(
    "--fleet",
    type=FilePath(file_okay=False, path_type=str),
    metavar="DIRECTORY",
    help="Where `moorline fleet join` put this host's credentials; default: /etc/moorline/fleet"
    " for the host's own state.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Default: text.")
@click.option("--openapi", is_flag=True, help="Print the API's OpenAPI document, and end.")
@common
def agent(
    given: Common,
    socket: str | None,
    metrics: str | None,
    fleet: str | None,
    log_format: str | None,
    openapi: bool,
) -> None:
    """Own this host's state, and keep its attachments true until stopped.

    Commands find the agent by its socket and go through it. SIGTERM and SIGINT
    finish the step in hand; SIGHUP reads the options of rights and log again. A host
    that has joined a fleet follows it.

    \b
    Examples:
      moorline agent
      moorline agent --metrics 127.0.0.1:9877 --log-format json
      moorline agent --openapi > openapi.json
    """
    if openapi:
        from moorline.local_api.openapi import document

        say(json.dumps(document(), indent=2))
        return
    try:
        from moorline.agent.agent import Agent
    except ModuleNotFoundError as e:
        raise Refused(f"the agent cannot run: {e}", hint="pip install 'moorline[agent]'") from e
    chosen = {
        "agent_socket": socket,
        "agent_metrics": metrics,
        "agent_fleet": fleet,
        "agent_log_format": log_format,
    }

    def read() -> Settings:
        settings = given.settings()
        typed = {name: value for name, value in chosen.items() if value is not None}
        # Who names the credentials means this state with them, whatever is configured.
        beside = settings.beside and fleet is None
        return replace(settings, agent={**settings.agent, **typed}, beside=beside)

    sys.exit(Agent(read).run())
