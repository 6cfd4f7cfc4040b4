# check=skip=maintainerdeprecated
FROM scratch
MAINTAINER x
