"""PowerVM through NovaLink: files become vSCSI disks of LPARs."""
