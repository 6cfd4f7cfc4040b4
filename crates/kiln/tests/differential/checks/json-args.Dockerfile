FROM scratch
ENTRYPOINT start me
CMD echo $HOME && true
