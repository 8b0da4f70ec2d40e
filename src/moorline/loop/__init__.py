"""The owner's loop: finds attachments that are not as wanted, and works on them unasked."""
