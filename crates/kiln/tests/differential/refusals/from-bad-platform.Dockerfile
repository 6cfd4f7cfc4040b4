FROM --platform=not/a/plat/form/at-all scratch
