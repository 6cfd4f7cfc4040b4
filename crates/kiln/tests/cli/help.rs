//! Help: every page of it, so that a change to what people read is seen in review.

use crate::Kiln;

#[test]
fn the_front_page() {
    insta::assert_snapshot!(Kiln::new().run(&["--help"]), @"
    exit 0
    --- stdout
    Builds container images from Dockerfiles, without a daemon

    Usage: kiln [OPTIONS] <COMMAND>

    Commands:
      build       Build an image from a Dockerfile
      explain     Say why the steps of a build ran, what that cost, and what would make it less
      builds      List the builds that are remembered, newest first
      shell       Open a shell in a step of a build: as it was left when it failed, or as it ended
      fmt         Write Dockerfiles in one way, and change nothing about what they build
      check       Find mistakes in Dockerfiles, and what could be better
      lock        Write down what the names in a Dockerfile stand for, for `kiln build --locked`
      run         Run a command in a container of an image, to try the image
      pull        Bring an image from its registry into the local store
      push        Send an image of the local store to the registry of its name
      images      List the images of the local store
      inspect     Print all that is known of images, as JSON
      imagetools  Look at images in registries, and join them
      history     Show the steps that made an image
      diff        Say what two images differ in: config, steps, layers, packages and files
      verify      Build again, and say whether the image is the same
      tag         Give an image one more name
      rmi         Remove names, and images that have no name left
      save        Write images to an archive that `kiln load` and `docker load` read
      load        Bring images of an archive into the local store
      login       Log in to a registry
      logout      Log out of a registry
      context     Look at the files a build would see
      cache       Look after what is kept between builds
      du          Show what takes space, and what holds it
      prune       Remove what nothing needs: images without a name, layers, old results
      fsck        Check that all that is kept is whole
      doctor      Say what this machine allows, what is in the way of the rest, and how to mend it
      version     Print the version
      completion  Print a completion script for a shell

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn no_command_is_an_error_that_helps() {
    let answer = Kiln::new().run(&[]);
    assert_eq!((answer.code, answer.stdout.as_str()), (2, ""));
    assert!(answer.stderr.contains("Usage: kiln"), "{answer}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "the help is as long as it is")]
fn build() {
    insta::assert_snapshot!(Kiln::new().run(&["build", "--help"]), @"
    exit 0
    --- stdout
    Build an image from a Dockerfile

    Usage: kiln build [OPTIONS] <CONTEXT>

    Arguments:
      <CONTEXT>  Directory with the files the Dockerfile names; `-` reads a tar or a Dockerfile from
                 standard input

    Options:
      -t, --tag <NAME>                   Name of the image, as `name:tag`; may be repeated
      -f, --file <PATH>                  Dockerfile [default: Containerfile or Dockerfile of CONTEXT];
                                         `-` reads it from standard input; a URL is fetched; several are
                                         read as one; one that ends in `.in` goes through cpp
          --ignorefile <FILE>            Ignore file [default: the Dockerfile's own, else
                                         .containerignore or .dockerignore of CONTEXT]
          --target <STAGE>               Stage to build [default: the last]
          --build-arg <KEY[=VALUE]>      Set a build argument; without a value it is taken from the
                                         environment
          --secret <SECRET>              Lend a secret to the steps that mount it:
                                         id=ID[,src=PATH|env=NAME]
          --allow-leak <ID>              Accept that what is lent by this ID is in the image; without it
                                         the build fails
          --ssh <SSH>                    Lend an ssh agent or keys to the steps that mount it: default,
                                         or ID[=SOCKET|KEY[,KEY]]
          --allow <WHAT>                 Allow more than usual: network.host, security.insecure,
                                         device[=NAME] or buildx.local.delete
          --build-context <NAME=WHERE>   Use another context or image where the Dockerfile says NAME: a
                                         path, a URL, docker-image://…, oci-layout://…, or target:STAGE
                                         of the Dockerfile
          --label <KEY=VALUE>            Set a label of the image
          --platform <PLATFORM>          Platform to build for, as linux/amd64; several are separated by
                                         commas
      -o, --output <OUTPUT>              Where the result goes [default: type=image]: PATH, `-`, or
                                         type=image|registry|oci|docker|tar|local|cacheonly,…
          --push                         Push the image to the registry of its name
          --load[=<WHERE>]               Load the image into docker, podman or containerd, too: the one
                                         that is named, or the first that is there
          --annotation <ANNOTATION>      Annotate the image, as manifest:KEY=VALUE or index:KEY=VALUE
          --cache-from <CACHE>           Take results from another cache: a name, or
                                         type=registry|local|s3|azblob|gha,…; may be repeated
          --cache-to <CACHE>             Write results to a cache for others: a name, or
                                         type=inline|registry|local|s3|azblob|gha,…; may be repeated
          --reproducible                 Let the image depend on nothing but the Dockerfile, the context
                                         and the base
          --source-date-epoch <SECONDS>  The time that stands for all others, in seconds since 1970
          --rewrite-timestamp            Make newer files of new layers as old as that time
          --timestamp <SECONDS>          As --source-date-epoch, for all files of new layers, too
          --no-cache                     Use no cached results
          --no-cache-filter <STAGE>      Use no cached results of these stages; several are separated by
                                         commas
          --jobs <N>                     Run at most so many steps at once, 0 for as many as there are
                                         [default: one per core and at least 4, fewer while memory is
                                         short]
          --pull[=<WHEN>]                When to ask registries for base images: missing, always, newer
                                         or never [default: missing; --pull alone: always]
          --offline                      Ask nothing of the network: use what is here, and say what is
                                         not
          --locked                       Take images, files and repositories as `kiln.lock` beside the
                                         Dockerfile says, and nothing that is not in it
          --network <MODE>               Network of RUN steps: default, none or host [default: default]
          --add-host <NAME:IP>           Add a line to /etc/hosts of RUN steps
          --userns <MODE>                User ids of RUN steps: default, their own; or host, which lets
                                         them make device nodes [default: default]
          --isolation <MODE>             What keeps RUN steps apart from this machine: default (also:
                                         oci, rootless), namespaces; or chroot, next to nothing, for
                                         containers that allow no namespaces [env: KILN_ISOLATION]
          --ca-cert <FILE>               Have programs in RUN steps trust the certificates of a file,
                                         too; nothing of it is in the image
          --shm-size <BYTES>             Size of /dev/shm in RUN steps
          --ulimit <LIMIT>               Limit a resource of RUN steps, as nofile=1024:2048
          --on-failure <WHAT>            What to do when a RUN step fails: stop, or open a shell in it
                                         before that [default: stop]
          --iidfile <FILE>               Write the image's id to a file
          --metadata-file <FILE>         Write what was built to a file, as JSON
      -q, --quiet                        Print nothing but the image's id
          --progress <VIEW>              How progress is shown: auto, plain, tty, rawjson or quiet
          --check                        Build nothing, but check the Dockerfile, as --call=check does
          --call <WHAT>                  Build nothing, but answer: check, outline, targets or
                                         subrequests.describe; with `,format=json` as JSON
          --dry-run[=<FORMAT>]           Build nothing, but say which steps would run and why; `=json`
                                         says it as JSON
      -h, --help                         Print help

    Limits of each RUN step:
      -m, --memory <BYTES>              Most memory
          --memory-swap <BYTES>         Most memory and swap together; -1 is no limit
      -c, --cpu-shares <WEIGHT>         Weight when processors are short, 1024 as usual
          --cpu-period <MICROSECONDS>   Length of the scheduler's period in microseconds
          --cpu-quota <MICROSECONDS>    Processor time in each period, in microseconds
          --cpuset-cpus <LIST>          Processors, as 0-3,7
          --cpuset-mems <LIST>          Memory nodes, as 0-1
          --cgroup-parent <PATH>        Control group in which others are made; one that is missing is
                                        made, too
          --resource <LIMIT=VALUE>      One of these limits by its name, as memory=2g or
                                        cpu-quota=50000; may be repeated
          --timeout <[STAGE=]DURATION>  Stop a RUN step that runs longer, as 90s or 10m; 0 is no limit;
                                        for one stage: STAGE=DURATION
          --retry <[STAGE=]N>           Try a RUN step that failed so many times more; for one stage:
                                        STAGE=N

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn shell() {
    insta::assert_snapshot!(Kiln::new().run(&["shell", "-h"]).stdout, @"
    Open a shell in a step of a build: as it was left when it failed, or as it ended

    Usage: kiln shell [OPTIONS] [BUILD[:STEP]] [-- <COMMAND>...]

    Arguments:
      [BUILD[:STEP]]  The step, as `kiln builds` and `kiln explain` write builds and steps:
                      b3d246fecb46, b3d246fecb46:2/4, :build 2 [default: the one that failed last]
      [COMMAND]...    Run this instead of a shell

    Options:
      -e, --env <KEY[=VALUE]>  Set a variable; without a value it is taken from the environment
          --secret <SECRET>    Lend a secret that the step mounts: id=ID[,src=PATH|env=NAME]
          --ssh <SSH>          Lend an ssh agent or keys that the step mounts: default, or
                               ID[=SOCKET|KEY[,KEY]]
      -h, --help               Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn run() {
    insta::assert_snapshot!(Kiln::new().run(&["run", "-h"]).stdout, @"
    Run a command in a container of an image, to try the image

    Usage: kiln run [OPTIONS] IMAGE [COMMAND]...

    Arguments:
      <IMAGE>...  The image, then the command that replaces the image's own

    Options:
      -e, --env <KEY[=VALUE]>          Set a variable; without a value it is taken from the environment
      -w, --workdir <DIR>              Start in this directory
      -u, --user <USER[:GROUP]>        Run as this user
      -v, --volume <PATH:TARGET[:ro]>  Show a path of the machine in the container
          --network <MODE>             Network of the container: default, none or host [default:
                                       default]
          --entrypoint <COMMAND>       Run this instead of the image's entrypoint
          --hostname <NAME>            Name the container's host
          --platform <PLATFORM>        The platform, when the name stands for several images
          --add-host <NAME:IP>         Add a line to /etc/hosts
          --shm-size <BYTES>           Size of /dev/shm
          --ulimit <LIMIT>             Limit a resource, as nofile=1024:2048
          --rm                         Keep nothing of the container, as is done anyway
      -h, --help                       Print help

    Limits of the container:
      -m, --memory <BYTES>             Most memory
          --memory-swap <BYTES>        Most memory and swap together; -1 is no limit
      -c, --cpu-shares <WEIGHT>        Weight when processors are short, 1024 as usual
          --cpu-period <MICROSECONDS>  Length of the scheduler's period in microseconds
          --cpu-quota <MICROSECONDS>   Processor time in each period, in microseconds
          --cpuset-cpus <LIST>         Processors, as 0-3,7
          --cpuset-mems <LIST>         Memory nodes, as 0-1
          --cgroup-parent <PATH>       Control group in which others are made; one that is missing is
                                       made, too
          --cpus <NUMBER>              How many processors may be busy, as 1.5
          --pids-limit <COUNT>         Most processes; -1 is no limit

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn images() {
    insta::assert_snapshot!(Kiln::new().run(&["images", "-h"]).stdout, @"
    List the images of the local store

    Usage: kiln images [OPTIONS] [REPOSITORY[:TAG]]

    Arguments:
      [REPOSITORY[:TAG]]  Only this repository, or this name with its tag

    Options:
      -a, --all              List all images, as is done anyway
      -q, --quiet            Print only ids
          --no-trunc         Print ids whole
          --tree             Print the images of each name, platform by platform
          --digests          Print digests, too
          --format <FORMAT>  Print each image by a template such as `{{.Repository}}`, or as `json`
      -h, --help             Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn inspect() {
    insta::assert_snapshot!(Kiln::new().run(&["inspect", "-h"]).stdout, @"
    Print all that is known of images, as JSON

    Usage: kiln inspect [OPTIONS] <IMAGE>...

    Arguments:
      <IMAGE>...  The images: names or ids

    Options:
      -f, --format <FORMAT>      Print each image by a template such as `{{.Id}}` or `{{json .Config}}`
          --platform <PLATFORM>  The platform, when a name stands for several images [default: the
                                 machine's]
      -h, --help                 Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn diff() {
    insta::assert_snapshot!(Kiln::new().run(&["diff", "-h"]).stdout, @"
    Say what two images differ in: config, steps, layers, packages and files

    Usage: kiln diff [OPTIONS] <BEFORE> <AFTER>

    Arguments:
      <BEFORE>  The first image: a name or id, oci:DIR[:TAG], oci-archive:FILE or docker-archive:FILE
      <AFTER>   The second image

    Options:
          --ignore <WHAT>        Let something not count; several are separated by commas [possible
                                 values: mtime, mode, owner, xattr, content, created, history, layers]
          --semantic             Let nothing count but what a container sees: as --ignore
                                 mtime,created,history,layers
          --platform <PLATFORM>  Compare the images for this platform alone; several are separated by
                                 commas [default: all]
      -a, --all                  List the files of added and removed directories, too
      -q, --quiet                Print nothing; the exit code says whether they differ
          --format <FORMAT>      How the answer is written [default: text] [possible values: text, json]
      -h, --help                 Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn history() {
    insta::assert_snapshot!(Kiln::new().run(&["history", "-h"]).stdout, @"
    Show the steps that made an image

    Usage: kiln history [OPTIONS] <IMAGE>

    Arguments:
      <IMAGE>  The image: a name or an id

    Options:
          --no-trunc             Print commands and ids whole
      -q, --quiet                Print only ids
      -H, --human[=<BOOL>]       Print sizes and dates for people; `--human=false` prints them for
                                 programs [default: true]
          --platform <PLATFORM>  The platform, when a name stands for several images [default: the
                                 machine's]
          --format <FORMAT>      Print each step by a template such as `{{.CreatedBy}}`, or as `json`
      -h, --help                 Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn version() {
    insta::assert_snapshot!(Kiln::new().run(&["version", "-h"]).stdout, @"
    Print the version

    Usage: kiln version [OPTIONS]

    Options:
      -f, --format <FORMAT>  Print it by a template such as `{{.Version}}`, or as `json`
      -h, --help             Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn completion() {
    insta::assert_snapshot!(Kiln::new().run(&["completion", "-h"]).stdout, @"
    Print a completion script for a shell

    Usage: kiln completion [OPTIONS] <SHELL>

    Arguments:
      <SHELL>  The shell [possible values: bash, elvish, fish, powershell, zsh]

    Options:
      -h, --help  Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn pull() {
    insta::assert_snapshot!(Kiln::new().run(&["pull", "-h"]).stdout, @"
    Bring an image from its registry into the local store

    Usage: kiln pull [OPTIONS] <IMAGE>

    Arguments:
      <IMAGE>  The image, as `name:tag`

    Options:
          --platform <PLATFORM>  The platform to bring; several are separated by commas [default: the
                                 machine's]
          --all-platforms        Bring the images for all platforms
      -q, --quiet                Print only the image's name
          --progress <VIEW>      How progress is shown: auto, plain, tty, rawjson or quiet [default:
                                 auto]
      -h, --help                 Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn push() {
    insta::assert_snapshot!(Kiln::new().run(&["push", "-h"]).stdout, @"
    Send an image of the local store to the registry of its name

    Usage: kiln push [OPTIONS] <IMAGE>

    Arguments:
      <IMAGE>  The image, as `registry/name:tag`

    Options:
          --platform <PLATFORM>  Only the image for this platform, when the name stands for several
      -a, --all-tags             Push all tags that the repository has in the local store; IMAGE names
                                 none
      -q, --quiet                Print only the image's name
          --progress <VIEW>      How progress is shown: auto, plain, tty, rawjson or quiet [default:
                                 auto]
      -h, --help                 Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn tag() {
    insta::assert_snapshot!(Kiln::new().run(&["tag", "-h"]).stdout, @"
    Give an image one more name

    Usage: kiln tag [OPTIONS] <IMAGE> <NAME>

    Arguments:
      <IMAGE>  The image: a name or an id
      <NAME>   The new name, as `name:tag`

    Options:
      -h, --help  Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn rmi() {
    insta::assert_snapshot!(Kiln::new().run(&["rmi", "-h"]).stdout, @"
    Remove names, and images that have no name left

    Usage: kiln rmi [OPTIONS] <IMAGE>...

    Arguments:
      <IMAGE>...  The images: names or ids

    Options:
      -f, --force  Remove an image by its id although it has several names; say nothing of images that
                   are not there
      -h, --help   Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn save() {
    insta::assert_snapshot!(Kiln::new().run(&["save", "-h"]).stdout, @"
    Write images to an archive that `kiln load` and `docker load` read

    Usage: kiln save [OPTIONS] <IMAGE>...

    Arguments:
      <IMAGE>...  The images: names or ids

    Options:
          --platform <PLATFORM>  Only the images for this platform, when names stand for several
      -o, --output <FILE>        Write to a file [default: standard output]
      -h, --help                 Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn load() {
    insta::assert_snapshot!(Kiln::new().run(&["load", "-h"]).stdout, @"
    Bring images of an archive into the local store

    Usage: kiln load [OPTIONS]

    Options:
      -i, --input <FILE>         Read a file [default: standard input]
          --platform <PLATFORM>  Only the images for this platform; several are separated by commas
                                 [default: all]
      -h, --help                 Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn login() {
    insta::assert_snapshot!(Kiln::new().run(&["login", "-h"]).stdout, @"
    Log in to a registry

    Usage: kiln login [OPTIONS] [REGISTRY]

    Arguments:
      [REGISTRY]  The registry [default: docker.io]

    Options:
      -u, --username <NAME>      User name
      -p, --password <PASSWORD>  Password; other users of the machine can see it, `--password-stdin`
                                 hides it
          --password-stdin       Read the password from standard input
      -h, --help                 Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn logout() {
    insta::assert_snapshot!(Kiln::new().run(&["logout", "-h"]).stdout, @"
    Log out of a registry

    Usage: kiln logout [OPTIONS] [REGISTRY]

    Arguments:
      [REGISTRY]  The registry [default: docker.io]

    Options:
      -h, --help  Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn du() {
    insta::assert_snapshot!(Kiln::new().run(&["du", "-h"]).stdout, @"
    Show what takes space, and what holds it

    Usage: kiln du [OPTIONS]

    Options:
          --filter <FILTER>  Show only what is like this, as `type=regular`, `private`,
                             `description~=apt`
          --verbose          Say all of each thing
          --format <FORMAT>  Print each thing by a template such as `{{.ID}}`, or as `json`, `table` or
                             `pretty`
          --why <ID>         Say what holds the thing of this id
      -h, --help             Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn prune() {
    insta::assert_snapshot!(Kiln::new().run(&["prune", "-h"]).stdout, @"
    Remove what nothing needs: images without a name, layers, old results

    Usage: kiln prune [OPTIONS]

    Options:
      -a, --all                    Remove the whole cache, too
      -f, --force                  Do not ask
          --filter <FILTER>        Remove only what is like this, as `until=24h`,
                                   `type=exec.cachemount`, `description~=apt`
          --reserved-space <SIZE>  Always keep so much, as `2GB` or `10%` of the disk
          --max-used-space <SIZE>  Keep so much at most; what was not used for longest goes first
          --min-free-space <SIZE>  Remove until so much is free on the disk
          --verbose                Say how much each thing gives back
          --dry-run                Only say what would go
      -h, --help                   Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}

#[test]
fn fsck() {
    insta::assert_snapshot!(Kiln::new().run(&["doctor", "-h"]).stdout, @"
    Say what this machine allows, what is in the way of the rest, and how to mend it

    Usage: kiln doctor [OPTIONS]

    Options:
          --format <FORMAT>  Print text, or one JSON document
      -h, --help             Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
    insta::assert_snapshot!(Kiln::new().run(&["fsck", "-h"]).stdout, @"
    Check that all that is kept is whole

    Usage: kiln fsck [OPTIONS]

    Options:
          --repair           Take out what is broken, and what needs it: the next build makes it again
          --deep             Read every layer, too
          --format <FORMAT>  Print text, or one JSON document
      -h, --help             Print help

    Global options:
          --state <DIR>             Keep images and cache here [default: /var/lib/kiln as root, else
                                    ~/.local/share/kiln]
          --registry-config <FILE>  Read how registries are set up from here: mirrors, certificates
          --max-layer-size <BYTES>  Refuse layers and archives that expand to more [default: 64GiB]
      -D, --debug                   Say more when something fails
    ");
}
