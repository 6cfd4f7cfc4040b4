FROM scratch AS base
ARG A=1
ENV B=$A
WORKDIR /x
CMD ["a"]
