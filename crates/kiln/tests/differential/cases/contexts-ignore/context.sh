mkdir -p other/a; echo 1 >other/keep; echo 2 >other/drop; echo 3 >other/a/drop; printf 'drop\n**/drop\n' >other/.dockerignore
