# check=error=true
FROM scratch AS Up
