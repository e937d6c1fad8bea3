# Named images. With `images: {file: /etc/nixfront/images.nix}` in the settings, HOST/images/NAME is the image NAME of the
# file, with the same tags as any other image.
#
# The file is a set of images, or a function that yields one: `pkgs` is the default package set, at the revision that the
# tag chooses, and `system` is "x86_64-linux" or another. It may read its own folder and the package sets, nothing else.
{ pkgs, ... }:
{
  # Packages are named as in the path of an image, or are derivations. The first one's program would be the command.
  toolbox = {
    packages = [ "bashInteractive" "coreutils" "git" ];
    cmd = [ "/bin/bash" ];
  };

  # Every key that there is. None has to be there.
  greeter = {
    packages = [ "hello" pkgs.bash pkgs.coreutils ];

    # More that is linked into the root: derivations, store paths ("/nix/store/HASH-NAME", which Nix fetches or has), and
    # files beside this one (./etc-files).
    contents = [ pkgs.tzdata ];

    # Run by bash in a Nix build, with coreutils, before the root layer is made. The root tree is the working directory:
    # add, change and remove what you like, but nothing under /nix. Modes stay as they are set here (Nix allows no setuid).
    extraCommands = ''
      mkdir -p srv/greeter
      echo 'Good morning' > srv/greeter/motto
      chmod 640 srv/greeter/motto
    '';

    # Who owns the files of the root layer; those of the store always belong to root.
    uid = 1000;
    gid = 1000;

    # What a container of the image runs, and as whom: UID:GID gets a name and a home, anything else has to be in /etc/passwd.
    user = "1000:1000";
    entrypoint = [ "/bin/hello" ];
    cmd = [ "--greeting=Hello from a named image" ];
    env.GREETER_FILE = "/srv/greeter/motto";
    workdir = "/srv/greeter";
    exposedPorts = [ 8080 "5353/udp" ];
    labels."org.opencontainers.image.title" = "greeter";

    # As layers.most in the settings, for this image.
    maxLayers = 12;

    # The package set that the strings in `packages` are about, one of `sets` in the settings. Null: the default one.
    set = null;
  };
}
