# Modes git cannot keep.
mkdir -p private/sticky private/group
for mode in 0400 0600 0640 0755 0777 2755 4755; do echo $mode >private/f$mode; chmod $mode private/f$mode; done
chmod 0700 private; chmod 1777 private/sticky; chmod 2775 private/group
