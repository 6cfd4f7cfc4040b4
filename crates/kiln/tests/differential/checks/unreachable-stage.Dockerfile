FROM scratch AS Unused
MAINTAINER x
FROM scratch
LABEL a=$b
