"""config and support-bundle: values and whence, and no secret in what is given away."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moorline.cli.commands import main
from moorline.redaction import anonymous, redacted

Run = Callable[..., Result]
SECRETS = ("hunter2", "hunter3", "hunter4")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "state").mkdir()
    state = {"MOORLINE_STATE_DIR": str(tmp_path / "state")}
    runner = CliRunner(env={**state, "MOORLINE_HYPERVISOR": "test:///default"})
    return lambda *words, **named: runner.invoke(main, [*map(str, words)], **named)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    file = tmp_path / "moorline.conf"
    file.write_text(
        "[libvirt]\nsmbfs_mount_options = username=u,password=hunter3\n"
        "quobyte_mount_point_base = /mnt/q\n"
    )
    return file


def test_each_value_says_whence_it_is(run: Run, conf: Path, tmp_path: Path) -> None:
    done = run("config", "show", "--config-file", conf, "-o", "json")
    found = {each["name"]: each for each in json.loads(done.stdout)}
    base = found["quobyte_mount_point_base"]
    assert (base["value"], base["whence"]) == ("/mnt/q", str(conf))
    assert found["agent_group"]["whence"] == "default"
    assert found["state_dir"]["value"] == str(tmp_path / "state")
    assert found["state_dir"]["whence"] != "default"
    assert found["smbfs_mount_options"]["value"] == "username=u,password=***"
    names = run("config", "show", "--set", "--config-file", conf).stdout
    assert "quobyte_mount_point_base" in names
    assert "agent_group" not in names


def test_what_cannot_be_used_is_told(run: Run, conf: Path) -> None:
    done = run("config", "check", "--config-file", conf)
    assert (done.exit_code, done.stdout) == (0, "the configuration can be used\n")
    conf.write_text("[libvirt]\nquobyte_mount_point_base = relative\n")
    done = run("config", "check", "--config-file", conf)
    assert (done.exit_code, "quobyte" in done.stdout) == (10, True)
    conf.write_text("[moorline]\nagent_gruop = x\n")
    assert run("config", "check", "--config-file", conf).exit_code == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("agent_sweep_every = never", "agent_sweep_every is 'never'"),
        ("agent_log_level = loud", "agent_log_level is 'loud'"),
        ("agent_anyone_may_look = perhaps", "agent_anyone_may_look is 'perhaps'"),
        ("agent_metrics = 0.0.0.0:9877", "0.0.0.0:9877 is no loopback address"),
        ("agent_metrics = 127.0.0.1:²", "127.0.0.1:² is no loopback address"),
        ("agent_fleet_memory = much", "agent_fleet_memory is 'much'"),
    ],
)
def test_what_the_agent_would_not_start_with_is_told(
    run: Run, conf: Path, line: str, told: str
) -> None:
    conf.write_text(f"[moorline]\n{line}\n")
    done = run("config", "check", "--config-file", conf)
    assert (done.exit_code, told in done.stdout) == (10, True), done.stdout
    assert "\n" not in done.stdout.rstrip()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[libvirt]\nlocal_directores = /srv\n", "is it local_directories?"),
        ("[libvirt]\nquobyte_mount_pont_base = /q\n", "is it quobyte_mount_point_base?"),
        ("[moorline]\nstate_dri = /s\n", "is it state_dir?"),
        ("[libvrt]\nlocal_directories = /srv\n", "is it [libvirt]?"),
        ("[moorline]\nlocal_directories = /srv\n", "it belongs into [libvirt]"),
        ("[DEFAULT]\nlocal_directories = /srv\n", "it belongs into [libvirt]"),
    ],
)
def test_a_mistyped_option_is_told(run: Run, conf: Path, text: str, told: str) -> None:
    conf.write_text(text)
    done = run("config", "check", "--config-file", conf)
    assert (done.exit_code, done.stdout.count("\n")) == (10, 1)
    assert done.stdout.startswith(f"{conf}: ")
    assert told in done.stdout


def test_options_of_novas_are_no_slips(run: Run, conf: Path) -> None:
    """Those that are most like ours, where a nova.conf is given."""
    conf.write_text(
        "[DEFAULT]\nmy_ip = 192.0.2.1\nhosts = a\nlock_path = /l\n"
        "[libvirt]\nvirt_type = kvm\nvolume_enforce_multipath = true\nrbd_secret_uuid = x\n"
        "live_migration_permit_post_copy = true\nlive_migration_downtime = 500\n"
        "iser_use_multipath = true\nnum_volume_scan_tries = 3\nlive_migration_scheme = tls\n"
        "[oslo_concurrency]\nlock_path = /l\n[vmware]\nhost_ip = 192.0.2.2\n"
        "[privsep]\nhelper_command = sudo\n[cinder]\nos_region_name = a\n"
    )
    done = run("config", "check", "--config-file", conf)
    assert (done.exit_code, done.stdout) == (0, "the configuration can be used\n")


def test_the_example_is_a_configuration(run: Run, conf: Path) -> None:
    text = run("config", "example").stdout
    conf.write_text(text)
    before = json.loads(run("config", "show", "-o", "json").stdout)
    after = json.loads(run("config", "show", "--config-file", conf, "-o", "json").stdout)
    assert [each["value"] for each in before] == [each["value"] for each in after]
    for each in before:
        assert f"#{each['name']} =" in text
        assert f"[{each['group']}]" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=x,vers=3", "password=***,vers=3"),
        ('{"auth_password": "x y, z"}', '{"auth_password": "***"}'),
        (r'"message": "{\"password\": \"x y\", 1}"', r'"message": "{\"password\": \"***\", 1}"'),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("X-Auth-Token: abc", "X-Auth-Token: ***"),
        ("secret_key=abc api-key: d", "secret_key=*** api-key: ***"),
        ("vsphere://root:p@ss@vcenter/a@b", "vsphere://***@vcenter/a@b"),
        ("PASSWD: x", "PASSWD: ***"),
        ("vsphere://root:x@vcenter/", "vsphere://***@vcenter/"),
        ("vcenter_password_file = /etc/p", "vcenter_password_file = /etc/p"),
        ("/srv/compass=1", "/srv/compass=1"),
    ],
)
def test_what_looks_like_a_password_is_left_out(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("username=joe,vers=3", "username=***,vers=3"),
        ('{"auth_username": "joe x", "a": 1}', '{"auth_username": "***", "a": 1}'),
        ("rw,user_id=0,group_id=0", "rw,user_id=***,group_id=0"),
        ("quobyte_mount_user = joe", "quobyte_mount_user = joe"),
        ("9 1 0:5 / /m rw - fuse.sshfs joe@h:/p rw", "9 1 0:5 / /m rw - fuse.sshfs ***@h:/p rw"),
        ("9 1 0:5 / /m rw - ceph h:/p rw,name=joe", "9 1 0:5 / /m rw - ceph h:/p rw,name=***"),
        ("9 1 0:5 / /m rw - fuse.q quobyte@r/v rw", "9 1 0:5 / /m rw - fuse.q quobyte@r/v rw"),
        ("9 1 0:5 / /m rw - cgroup c rw,name=sys", "9 1 0:5 / /m rw - cgroup c rw,name=sys"),
    ],
)
def test_the_bundle_names_no_user_with_a_password(text: str, shown: str) -> None:
    assert anonymous(text) == shown


def test_no_planted_password_is_in_the_bundle(run: Run, conf: Path, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    data = {"path": str(tmp_path / "a.raw"), "format": "raw", "auth_password": "hunter2"}
    connection = {"driver_volume_type": "local", "data": data, "secret": "hunter4"}
    (tmp_path / "c.json").write_text(json.dumps(connection))
    words = ("attach", "test", "--connection", tmp_path / "c.json", "--level", "connected")
    assert run(*words).exit_code == 0
    run("attach", "test", "nfs://u:hunter4@h/p/f", "--format", "raw")  # refused, and in no event
    user = conf.read_text().replace("=u,", "=hunter5,")
    conf.write_text(f"{user}[vsphere]\nvcenter_user = hunter5\n")
    bundle = tmp_path / "bundle.tar.gz"
    done = run("support-bundle", bundle, "--config-file", conf)
    assert done.exit_code == 0, done.output
    assert bundle.stat().st_mode & 0o777 == 0o600
    with tarfile.open(bundle) as tar:
        parts = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    assert {Path(name).name for name in parts} >= {
        *("versions.json", "config.json", "mounts.txt", "attachments.json"),
        *("doctor.json", "events.json", "disks.json"),
    }
    assert b"a.raw" in parts["moorline-support/attachments.json"]
    for name, content in parts.items():
        for secret in (*SECRETS, "hunter5"):
            assert secret.encode() not in content, name
    assert run("support-bundle", bundle).exit_code == 3  # nothing is overwritten
