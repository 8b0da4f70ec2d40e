"""What is to be said of an attachment that was refused: it may be cured since."""

from __future__ import annotations

from collections.abc import Callable

from moorline.care import finding_texts
from moorline.core.plan import Step
from moorline.errors import MoorlineError, Refused
from moorline.model import Attachment, Linked, Seen
from moorline.ports import Finding
from moorline.ports.results import Trouble


def is_refusal(trouble: Trouble) -> bool:
    """Whether trying again does not help, as things were."""
    return trouble.error.lower() in ("refused", "notfound", "denied")


def refused(
    row: Attachment,
    step: Step,
    seen: Seen,
    trouble: Trouble,
    verify: Callable[[Attachment], object],
) -> Finding:
    """The finding for *row*, whose *step* is due and was refused with *trouble*.

    Its file is looked at again where that can be: *verify* is
    :meth:`moorline.core.file_checks.FileChecks.verify`.
    """
    if step is not Step.ATTACH or not isinstance(seen.link, Linked):
        return finding_texts.refused_attachment(row, trouble.message)
    try:
        verify(row)
    except Refused as e:
        return finding_texts.refused_attachment(row, str(e))
    except MoorlineError:
        return finding_texts.refused_attachment(row, trouble.message)
    return finding_texts.refused_attachment(
        row, f"{trouble.message}; its file can be given by now, and `moorline sweep` tries it"
    )
