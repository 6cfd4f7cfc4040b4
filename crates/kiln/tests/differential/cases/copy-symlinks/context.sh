mkdir -p links/real
echo real >links/real/file
ln -s real/file links/to-file
ln -s real links/to-dir
ln -s /nowhere/at/all links/dangling
ln -s ../outside links/upwards
ln -s links/real/file top-link
ln -s links/real top-dir
