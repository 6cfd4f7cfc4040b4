# check=unknown=x
FROM scratch
