FROM scratch
CMD --flag x
ENTRYPOINT --flag=y z
