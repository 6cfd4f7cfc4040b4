# check=error=true
FROM scratch
MAINTAINER x
