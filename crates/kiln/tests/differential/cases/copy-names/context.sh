echo 1 >'with space'; echo 2 >"quote'and\"double"; echo 3 >'umlaut-ü-日本'; echo 4 >$'tab\tname'; echo 5 >'-dash'; echo 6 >'back\slash'
echo 7 >$'latin1-\xe9'; echo 8 >$'new\nline'; echo 9 >'$dollar'; echo 10 >'star*'; echo 11 >.hidden
long=$(printf 'n%.0s' {1..200}); echo 12 >"$long"
mkdir -p "$long-d/$long/$long"; echo 13 >"$long-d/$long/$long/leaf"
