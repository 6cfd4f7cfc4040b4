mkdir -p tree/sub
echo f >f; echo x >tree/sub/x; ln -s sub/x tree/link; ln tree/sub/x tree/hard
chmod 4711 tree/sub/x
for kind in : gz:z bz2:j xz:J; do
  tar -c"${kind#*:}"f "tree.tar${kind:+.${kind%:*}}" --owner=7 --group=8 --sort=name --mtime=@1600000000 --transform="s,^tree,from-${kind%:*}," tree
done
mv tree.tar. plain.tar
echo 'only named so' >not-an-archive.tar
echo text | gzip -n >text.gz
# The same bytes whichever tar is installed.
base64 -d <<<H4sIAAAAAAACA+3Ouw2AMBQDwFczBSMQiMI8NAzAZ38iREUPEuKuseTGnuN5XVVyPrO6Z9VHGsZ+zOnqSxpKtN0L32Jft2mpk/FPcxMAAAAAAAAAAAB80AHqpWI8ACgAAA== | gunzip >same.tar
touch -d @1600000000 same.tar
