# The daemon as a service of NixOS. Its page: docs/how-to/nixos-server.md
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.tvix-store;
  toml = pkgs.formats.toml { };
  signed = cfg.signingKeyFile != null;
  proxied = cfg.nginx.hostName != null;

  ports = lib.concatMap (
    address:
    let
      port = builtins.match "([^/].*:)?([0-9]+)" address;
    in
    lib.optional (port != null) (lib.toInt (lib.last port))
  ) cfg.listenStreams;
  behindNginx = "127.0.0.1:${toString (builtins.head ports)}";
in
{
  options.services.tvix-store = {
    enable = lib.mkEnableOption "the daemon of tvix-store, a binary cache for Nix";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The tvix-store to run.";
    };

    listenStreams = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [
        "127.0.0.1:8000"
        "[::1]:8000"
      ];
      example = [
        "0.0.0.0:8000"
        "[::]:8000"
        "/run/tvix-store.sock"
      ];
      description = ''
        Addresses and Unix sockets, as in ListenStream= of systemd. If other machines reach one of them, the daemon starts only
        once a push token exists (`tvix-store token create --scope push`), or with `settings.daemon.read-only` or
        `settings.daemon.allow-remote`.
      '';
    };

    dataDir = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/tvix-store";
      description = "Directory of the store. Root's commands use the default one by themselves.";
    };

    settings = lib.mkOption {
      type = toml.type;
      default = { };
      example = {
        daemon = {
          substituters = [ "https://cache.nixos.org" ];
          gc-interval = "1d";
          gc-keep-for = "90d";
        };
      };
      description = ''
        The configuration file, docs/configuration.md. Everybody can read it in the Nix store: name secrets by `credentials`.
      '';
    };

    signingKeyFile = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "/var/keys/cache.key";
      description = "Key that signs what is served. Root alone has to be able to read it; it is not copied to the Nix store.";
    };

    credentials = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = {
        upstreams = "/var/keys/upstreams";
      };
      description = "Files of secrets. `settings` names each as `credential:NAME`.";
    };

    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether to open the ports in `listenStreams`.";
    };

    nginx.hostName = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "cache.example.org";
      description = ''
        Host name by which nginx serves the cache, with gRPC. Its certificate is an option of nginx:
        `services.nginx.virtualHosts.NAME.enableACME` and `forceSSL`.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !proxied || ports != [ ];
        message = "services.tvix-store.nginx.hostName needs a TCP port in services.tvix-store.listenStreams";
      }
    ];

    services.tvix-store.settings = lib.mkMerge [
      (lib.mkIf signed { daemon.signing-key-file = [ "credential:signing-key" ]; })
      (lib.mkIf proxied {
        daemon.allow-host = [ cfg.nginx.hostName ];
        daemon.trust-proxy = [ "127.0.0.1" ];
      })
    ];

    environment.systemPackages = [ cfg.package ];

    users.users.tvix-store = {
      isSystemUser = true;
      group = "tvix-store";
      home = cfg.dataDir;
    };
    users.groups.tvix-store = { };

    systemd.tmpfiles.rules = lib.optional (
      cfg.dataDir != "/var/lib/tvix-store"
    ) "d '${cfg.dataDir}' 0750 tvix-store tvix-store -";

    systemd.sockets.tvix-store = {
      description = "Sockets of the tvix-store daemon";
      wantedBy = [ "sockets.target" ];
      listenStreams = cfg.listenStreams;
      socketConfig = {
        BindIPv6Only = "ipv6-only";
        Backlog = 1024;
      };
    };

    # As packaging/systemd/tvix-store.service, which says why.
    systemd.services.tvix-store = {
      description = "tvix-store, a content-addressed store and binary cache for Nix";
      requires = [ "tvix-store.socket" ];
      wants = [ "network-online.target" ];
      after = [
        "tvix-store.socket"
        "network-online.target"
      ];
      wantedBy = [ "multi-user.target" ];
      environment = {
        TVIX_STORE = cfg.dataDir;
        TVIX_STORE_CONFIG = "${toml.generate "tvix-store.toml" cfg.settings}";
        XDG_CACHE_HOME = "/var/cache";
      };
      serviceConfig = {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = "${cfg.package}/bin/tvix-store daemon --listen-address sd-listen";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        User = "tvix-store";
        Group = "tvix-store";
        StateDirectory = "tvix-store";
        StateDirectoryMode = "0750";
        CacheDirectory = "tvix-store";
        ReadWritePaths = lib.optional (cfg.dataDir != "/var/lib/tvix-store") cfg.dataDir;
        LoadCredential =
          lib.mapAttrsToList (name: file: "${name}:${file}") cfg.credentials
          ++ lib.optional signed "signing-key:${cfg.signingKeyFile}";

        Restart = "on-failure";
        RestartSec = 2;
        RestartPreventExitStatus = "2 3";
        WatchdogSec = 120;
        TimeoutStopSec = 60;
        TimeoutStartSec = 90;
        KillMode = "mixed";
        LimitNOFILE = 65536;

        CapabilityBoundingSet = "";
        AmbientCapabilities = "";
        NoNewPrivileges = true;
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        PrivateDevices = true;
        PrivateUsers = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        RemoveIPC = true;
        RestrictAddressFamilies = [ "AF_UNIX AF_INET AF_INET6" ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
          "@chown"
        ];
        SystemCallErrorNumber = "EPERM";
        UMask = "0027";
      };
    };

    networking.firewall.allowedTCPPorts = lib.optionals cfg.openFirewall ports;

    # As docs/how-to/nginx.md, which says why.
    services.nginx = lib.mkIf proxied {
      enable = true;
      virtualHosts.${cfg.nginx.hostName} = {
        http2 = true;
        extraConfig = ''
          client_max_body_size 0;
          client_body_timeout 10m;
          keepalive_requests 100000;
          proxy_set_header Host $host;
          proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
          grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        '';
        locations."/" = {
          proxyPass = "http://${behindNginx}";
          recommendedProxySettings = false;
          extraConfig = ''
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 10m;
            proxy_send_timeout 10m;
          '';
        };
        locations."~ \"^(?!.*/(rpc|serve)/)(/[a-z0-9-]+){0,2}/(tvix|snix|tvix_store|grpc)\\.[a-z0-9_.]+\\.[A-Za-z]+/[A-Za-z]+$\"".extraConfig = ''
          grpc_pass grpc://${behindNginx};
          grpc_read_timeout 10m;
          grpc_send_timeout 10m;
        '';
      };
    };
  };
}
