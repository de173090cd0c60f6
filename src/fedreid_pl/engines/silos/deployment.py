"""Templates of files that run a silo or a coordinator as a service, or a proxy in front of the coordinator."""

SILO_SERVICE = """\
# A silo as a service. Set the data, then:
#   systemctl link {folder}/fedreid-silo.service && systemctl enable --now fedreid-silo
[Unit]
Description=fedreid_pl silo {name}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/env fedreid-pl silo run {folder} data.root=/path/to/pictures
Restart=always
RestartPreventExitStatus=2
RestartSec=5
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={folder}
PrivateTmp=yes
Environment=FEDREID_PL_CACHE={folder}/cache

[Install]
WantedBy=multi-user.target
"""

COORDINATOR_SERVICE = """\
# The coordinator as a service. A stopped run resumes from its last saved round; the service ends with the run.
#   systemctl link {folder}/fedreid-coordinator.service && systemctl enable --now fedreid-coordinator
[Unit]
Description=fedreid_pl coordinator
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
WorkingDirectory={folder}
ExecStart=/usr/bin/env fedreid-pl train exp=fedpav_rw engine=silos federation={folder} output_dir={folder}/run
Restart=on-failure
RestartPreventExitStatus=2
RestartSec=5
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={folder}
PrivateTmp=yes
Environment=FEDREID_PL_CACHE={folder}/cache

[Install]
WantedBy=multi-user.target
"""

CONTAINERFILE = """\
# A silo in a container:
#   podman build -t fedreid-silo .
#   podman run --restart=always -v ./:/silo:Z -v /path/to/pictures:/pictures:ro,Z fedreid-silo
FROM python:3.12-slim
RUN pip install --no-cache-dir 'fedreid-pl[silos]' && useradd --create-home silo
USER silo
ENV FEDREID_PL_CACHE=/silo/cache
ENTRYPOINT ["fedreid-pl", "silo", "run", "/silo"]
CMD ["data.root=/pictures"]
"""

NGINX = """\
# nginx in front of the coordinator, on port 443, which firewalls usually allow. The proxy forwards encrypted bytes and
# holds no key: silo and coordinator check each other's certificate. It needs the stream module of nginx (Debian:
# libnginx-mod-stream). Include this file outside of http {{ }}:
#   include {folder}/nginx.conf;
stream {{
    server {{
        listen 443;
        proxy_pass {target};
        proxy_connect_timeout 10s;
        proxy_timeout 1h;
    }}
}}
"""
