mkdir -p t/a/b t/c; echo 1 >t/1.txt; echo 2 >t/2.md; echo 3 >t/a/3.txt; echo 4 >t/a/b/4.md; echo 5 >t/c/5.txt; echo r >root.txt; chmod 750 t/a; chmod 600 t/a/3.txt
