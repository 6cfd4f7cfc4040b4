mkdir -p a/b/c d .git node_modules/x src/node_modules; for f in a.md README.md a/x.md a/b/y.md a/b/c/z.txt d/1 d/2 .git/HEAD node_modules/x/i src/node_modules/j src/main.c src/a.o top.log .hidden 'sp ace'; do echo "$f" >"$f"; done; cat >.dockerignore <<'END'
﻿# bom
  top.log  

#sp ace
sp ace
 !README.md
\#x
.hid*
[ad]/[0-9]
../d
/
.
END
