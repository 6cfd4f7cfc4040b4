mkdir x; echo 1 >x/f; tar -cf a.tar --sort=name --owner=0 --group=0 --mtime=@1400000000 -P --transform='s,^x/f,/abs/f,' x/f; rm -r x
