# check=skip=MaintainerDeprecated,StageNameCasing
FROM scratch AS Up
MAINTAINER x
CMD shell form
