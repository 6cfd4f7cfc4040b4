# check=skip=all
FROM scratch AS Up
MAINTAINER x
