"""NFS, SMB and GlusterFS: mount helpers."""
