"""fleet: the certificates, the users and the hosts of a fleet; its orders are beside this."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from moorline.cli.common import Common, common, dry_run_option, vouch_option
from moorline.cli.fleet_operations import OPERATIONS
from moorline.cli.fleet_queries import QUERIES, FleetName
from moorline.cli.groups import Group
from moorline.cli.name_completion import FilePath
from moorline.config import FLEET_DIR
from moorline.errors import Refused
from moorline.secret import Secret

_administered = click.option(
    "--directory",
    type=FilePath(file_okay=False),
    default=Path("/etc/moorline/fleet-admin"),
    show_default=True,
    help="From where the fleet is administered: who can read it is its root.",
)
_to = click.option(
    "--to",
    type=FilePath(dir_okay=False),
    help="Write the host's credentials to this new file, for its owner alone.",
)


@click.group(cls=Group)
def fleet() -> None:
    """Set up a fleet, many hosts whose state is in one etcd, and give it orders."""


for _order in (*QUERIES, *OPERATIONS):
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
@dry_run_option
@common
def certify(given: Common, directory: Path, members: tuple[str, ...], dry_run: bool) -> None:
    """Make the fleet's certificate authorities, and the certificates of etcd's members.

    What is there already is kept. An authority of your own goes to ca.pem and ca.key
    in the directory beforehand. Repeat it to add a member.

    \b
    Example:
      moorline fleet certify --member etcd1,192.0.2.11 --member etcd2,192.0.2.12
    """
    from moorline import fleet_wiring

    made = fleet_wiring.administration(directory).certify(members, dry_run=dry_run)
    lines = [f"{each}: copy it to that member, and to nowhere else" for each in made]
    if dry_run:
        lines = [f"would make what is not there yet in {each}" for each in (directory, *made)]
    given.tell({"members": [str(each) for each in made]}, "\n".join(lines))


@fleet.command()
@click.option(
    "--endpoints", required=True, metavar="URL[,URL…]", help="etcd's members: https://NAME:2379."
)
@_administered
@dry_run_option
@common
def init(given: Common, directory: Path, endpoints: str, dry_run: bool) -> None:
    """Make etcd the fleet's: its roles, its root, and authentication by certificate.

    \b
    Example:
      moorline fleet init --endpoints https://etcd1:2379,https://etcd2:2379
    """
    from moorline import fleet_wiring

    urls = [url.strip() for url in endpoints.split(",") if url.strip()]
    made = fleet_wiring.administration(directory).initialise(urls, dry_run=dry_run)
    done = "etcd is the fleet's"
    if dry_run and not made.epoch:
        done = "would make etcd the fleet's"
    lines = [done, *(f"warning: {warning}" for warning in made.warnings)]
    given.tell(asdict(made), "\n".join(lines))


@fleet.command()
@click.argument("host")
@_to
@_administered
@dry_run_option
@common
def enrol(given: Common, host: str, to: Path | None, directory: Path, dry_run: bool) -> None:
    """Make HOST one of the fleet: grants, a certificate, and the key of its sealed box.

    Repeated, it gives HOST all of them anew; connections are then sealed for it anew.

    \b
    Example:
      moorline fleet enrol compute7 --to compute7.join
    """
    from moorline import fleet_wiring

    administration = fleet_wiring.administration(directory)
    if dry_run:
        _foretell(given, host, administration.would_enrol(host).user)
        return
    _asked(to)
    _give(given, host, administration.enrol(host).dump(), to)


@fleet.command()
@click.argument("host", type=FleetName("host"))
@_to
@_administered
@dry_run_option
@common
def renew(given: Common, host: str, to: Path | None, directory: Path, dry_run: bool) -> None:
    """Make another certificate for HOST, before its own ends. The old one goes with retire.

    \b
    Example:
      moorline fleet renew compute7 --to compute7.join
    """
    from moorline import fleet_wiring

    administration = fleet_wiring.administration(directory)
    if dry_run:
        _foretell(given, host, administration.would_enrol(host, renew=True).user)
        return
    _asked(to)
    _give(given, host, administration.renew(host).dump(), to)


@fleet.command()
@click.argument("file", type=FilePath(exists=True, dir_okay=False))
@click.option(
    "--directory",
    type=FilePath(file_okay=False),
    help=f"Where this host keeps its credentials. Default: agent_fleet of [moorline], {FLEET_DIR}.",
)
@dry_run_option
@common
def join(given: Common, file: Path, directory: Path | None, dry_run: bool) -> None:
    """Install on this host what enrol or renew made for it. Remove FILE afterwards.

    The agent follows the fleet from its next start on; until then nothing is attached without
    the fleet. What was made for another host is refused.

    \b
    Example:
      moorline fleet join compute7.join
    """
    from moorline import config, fleet_wiring

    settings = given.settings()
    directory = directory or config.fleet_dir(settings) or FLEET_DIR
    host = fleet_wiring.join_fleet(file, directory, settings, dry_run=dry_run)
    is_now = "would be" if dry_run else "is"
    given.tell(
        {"host": host, "directory": str(directory)},
        f"this host {is_now} {host} in the fleet, with its credentials in {directory}",
    )


@fleet.command()
@click.argument("host", type=FleetName("host"))
@_administered
@dry_run_option
@common
def retire(given: Common, host: str, directory: Path, dry_run: bool) -> None:
    """Make HOST's earlier certificates worthless, once it has its last one.

    \b
    Example:
      moorline fleet retire compute7
    """
    from moorline import fleet_wiring

    users = fleet_wiring.administration(directory).retire(host, dry_run=dry_run)
    _tell_revoked(given, users, dry_run)


@fleet.command()
@click.argument("host", type=FleetName("host"))
@_administered
@dry_run_option
@common
def revoke(given: Common, host: str, directory: Path, dry_run: bool) -> None:
    """Make all certificates of HOST worthless: it is in the fleet no more.

    A watch that it has open lives until its connection is cut: restart etcd's members
    one by one, or cut the host off the network.

    \b
    Example:
      moorline fleet revoke compute7
    """
    from moorline import fleet_wiring

    users = fleet_wiring.administration(directory).revoke(host, dry_run=dry_run)
    _tell_revoked(given, users, dry_run)


@fleet.command()
@_administered
@common
def enrolled(given: Common, directory: Path) -> None:
    """List the hosts that were enrolled.

    \b
    Example:
      moorline fleet enrolled
    """
    from moorline import fleet_wiring

    hosts = fleet_wiring.administration(directory).hosts()
    lines = [f"{each.host}\t{each.user if each.box else 'revoked'}" for each in hosts]
    given.tell(
        [{**asdict(each), "user": each.user} for each in hosts], "\n".join(lines).expandtabs(24)
    )


@fleet.command()
@_administered
@dry_run_option
@common
def restored(given: Common, directory: Path, dry_run: bool) -> None:
    """Say that a backup of etcd was brought back, so that all hosts and controllers notice.

    Hosts leave everything as it is then, until each is told to follow again.

    \b
    Example:
      moorline fleet restored
    """
    from moorline import fleet_wiring

    epoch = fleet_wiring.administration(directory).restored(dry_run=dry_run)
    told = f"would replace the epoch {epoch}" if dry_run else "the fleet has another epoch"
    given.tell({"epoch": epoch}, f"{told}; then, on each host: moorline fleet follow")


@fleet.command()
@vouch_option
@dry_run_option
@common
def leave(given: Common, vouch: str, dry_run: bool) -> None:
    """Have this host be one of its own: its guests, volumes and links stay as they are.

    Stop its agent first. Its credentials are removed here; moorline fleet revoke makes them
    worthless. While it has guests of the fleet, it takes a person's word that no other
    host gets them.

    \b
    Examples:
      moorline fleet leave --dry-run
      moorline fleet leave --i-know-that-no-other-host-has-it "the fleet is given up, ticket 4711"
    """
    from moorline import wiring

    guests, untold = wiring.leave_fleet(given.settings(), vouch=vouch, dry_run=dry_run)
    is_now = "would be" if dry_run else "is"
    told = f"this host {is_now} in no fleet; guests that {is_now} its own: {len(guests)}"
    if untold:
        told += f"\nthe fleet was not told, which shows it as silent: {untold}"
    given.tell({"guests": list(guests), **({"untold": untold} if untold else {})}, told)


@fleet.command()
@vouch_option
@dry_run_option
@common
def follow(given: Common, vouch: str, dry_run: bool) -> None:
    """Have this host follow the fleet again, after a backup of etcd was brought back.

    What was decided since the backup is not in it. Where that differs from what this host
    did since, it is told, and the host follows only with a person's word.

    \b
    Examples:
      moorline fleet follow --dry-run
      moorline fleet follow
    """
    with given.open(own=False) as moorline:
        found = moorline.maintenance.follow(vouch=vouch, dry_run=dry_run)
    told = "would follow the fleet again" if dry_run else "this host follows the fleet"
    given.tell({"differs": list(found)}, "\n".join([told, *(f"differs: {each}" for each in found)]))
    if dry_run and found:
        raise Refused(f"the store differs in {len(found)} from what this host did since")


def _asked(to: Path | None) -> None:
    """Keys are not for the screen, and a file that is there is not written over."""
    if to is None and sys.stdout.isatty():
        raise Refused("these are a host's keys, and not for the screen", hint="--to HOST.join")
    if to is not None and to.exists():
        raise Refused(f"{to} is there already")


def _give(given: Common, host: str, credentials: Secret[bytes], to: Path | None) -> None:
    from moorline import fleet_wiring

    if to is None:
        click.echo(credentials.reveal(), nl=False)
        return
    fleet_wiring.write_credentials(credentials, to)
    given.tell(
        {"host": host, "file": str(to)},
        f"carry {to} to {host}: moorline fleet join {to.name}",
    )


def _tell_revoked(given: Common, users: list[str], dry_run: bool) -> None:
    lines = [f"would revoke {user}" if dry_run else user for user in users]
    given.tell({"revoked": users}, "\n".join(lines) or "nothing was left to revoke")


def _foretell(given: Common, host: str, user: str) -> None:
    given.tell({"host": host, "user": user}, f"would make the user {user} for {host}")
