echo 'hello world' >hello.txt; echo 'hello $NAME' >RAW; echo 'tabs go' >TAB
chmod 644 hello.txt RAW TAB
