"""fleet: the certificates, the users and the hosts of a fleet; its orders are beside this."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from moorline.cli.common import Common, common
from moorline.cli.fleet_orders import ORDERS
from moorline.config import FLEET_DIR
from moorline.errors import Refused
from moorline.secret import Secret

_administered = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/etc/moorline/fleet-admin"),
    show_default=True,
    help="From where the fleet is administered: who can read it is its root.",
)
_to = click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the host's credentials to this new file, for its owner alone.",
)


@click.group()
def fleet() -> None:
    """Set up a fleet, many hosts whose state is in one etcd, and give it orders."""


for _order in ORDERS:
    fleet.add_command(_order)


@fleet.command()
@click.option(
    "--member",
    "members",
    multiple=True,
    metavar="NAME[,NAME…]",
    help="A member of etcd: all names and addresses by which it is reached. Can be repeated.",
)
@_administered
@common
def certify(given: Common, directory: Path, members: tuple[str, ...]) -> None:
    """Make the fleet's certificate authorities, and the certificates of etcd's members.

    What is there already is kept. An authority of your own goes to ca.pem and ca.key
    in the directory beforehand. Repeat it to add a member.

    \b
    Example:
      moorline fleet certify --member etcd1,192.0.2.11 --member etcd2,192.0.2.12
    """
    from moorline import wiring

    made = wiring.administration(directory).certify(members)
    lines = [f"{each}: copy it to that member, and to nowhere else" for each in made]
    given.tell({"members": [str(each) for each in made]}, "\n".join(lines))


@fleet.command()
@click.option(
    "--endpoints", required=True, metavar="URL[,URL…]", help="etcd's members: https://NAME:2379."
)
@_administered
@common
def init(given: Common, directory: Path, endpoints: str) -> None:
    """Make etcd the fleet's: its roles, its root, and authentication by certificate.

    \b
    Example:
      moorline fleet init --endpoints https://etcd1:2379,https://etcd2:2379
    """
    from moorline import wiring

    urls = [url.strip() for url in endpoints.split(",") if url.strip()]
    made = wiring.administration(directory).initialise(urls)
    lines = ["etcd is the fleet's", *(f"warning: {warning}" for warning in made.warnings)]
    given.tell(asdict(made), "\n".join(lines))


@fleet.command()
@click.argument("host")
@_to
@_administered
@common
def enrol(given: Common, host: str, to: Path | None, directory: Path) -> None:
    """Make HOST one of the fleet: grants, a certificate, and the key of its sealed box.

    Repeated, it gives HOST all of them anew; connections are then sealed for it anew.

    \b
    Example:
      moorline fleet enrol compute7 --to compute7.join
    """
    from moorline import wiring

    _asked(to)
    _give(given, host, wiring.administration(directory).enrol(host).dump(), to)


@fleet.command()
@click.argument("host")
@_to
@_administered
@common
def renew(given: Common, host: str, to: Path | None, directory: Path) -> None:
    """Make another certificate for HOST, before its own ends. The old one goes with retire.

    \b
    Example:
      moorline fleet renew compute7 --to compute7.join
    """
    from moorline import wiring

    _asked(to)
    _give(given, host, wiring.administration(directory).renew(host).dump(), to)


@fleet.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=FLEET_DIR,
    show_default=True,
    help="Where this host keeps its credentials.",
)
@common
def join(given: Common, file: Path, directory: Path) -> None:
    """Install on this host what enrol or renew made for it. Remove FILE afterwards.

    \b
    Example:
      moorline fleet join compute7.join
    """
    from moorline import wiring

    member = wiring.join_fleet(file, directory)
    given.tell(
        {"host": member.host, "directory": str(directory)},
        f"this host is {member.host} in the fleet; its credentials are in {directory}",
    )


@fleet.command()
@click.argument("host")
@_administered
@common
def retire(given: Common, host: str, directory: Path) -> None:
    """Make HOST's earlier certificates worthless, once it has its last one.

    \b
    Example:
      moorline fleet retire compute7
    """
    from moorline import wiring

    _tell_revoked(given, wiring.administration(directory).retire(host))


@fleet.command()
@click.argument("host")
@_administered
@common
def revoke(given: Common, host: str, directory: Path) -> None:
    """Make all certificates of HOST worthless: it is in the fleet no more.

    A watch that it has open lives until its connection is cut: restart etcd's members
    one by one, or cut the host off the network.

    \b
    Example:
      moorline fleet revoke compute7
    """
    from moorline import wiring

    _tell_revoked(given, wiring.administration(directory).revoke(host))


@fleet.command()
@_administered
@common
def enrolled(given: Common, directory: Path) -> None:
    """List the hosts that were enrolled.

    \b
    Example:
      moorline fleet enrolled
    """
    from moorline import wiring

    hosts = wiring.administration(directory).hosts()
    lines = [f"{each.host}\t{each.user if each.box else 'revoked'}" for each in hosts]
    given.tell(
        [{**asdict(each), "user": each.user} for each in hosts], "\n".join(lines).expandtabs(24)
    )


@fleet.command()
@_administered
@common
def restored(given: Common, directory: Path) -> None:
    """Say that a backup of etcd was brought back, so that all hosts and controllers notice.

    \b
    Example:
      moorline fleet restored
    """
    from moorline import wiring

    epoch = wiring.administration(directory).restored()
    given.tell({"epoch": epoch}, "the fleet has another epoch: hosts list again")


def _asked(to: Path | None) -> None:
    """Keys are not for the screen, and a file that is there is not written over."""
    if to is None and sys.stdout.isatty():
        raise Refused("these are a host's keys, and not for the screen", hint="--to HOST.join")
    if to is not None and to.exists():
        raise Refused(f"{to} is there already")


def _give(given: Common, host: str, credentials: Secret[bytes], to: Path | None) -> None:
    from moorline import wiring

    if to is None:
        click.echo(credentials.reveal(), nl=False)
        return
    wiring.write_credentials(credentials, to)
    given.tell(
        {"host": host, "file": str(to)},
        f"carry {to} to {host}: moorline fleet join {to.name}",
    )


def _tell_revoked(given: Common, users: list[str]) -> None:
    given.tell({"revoked": users}, "\n".join(users) or "nothing was left to revoke")
