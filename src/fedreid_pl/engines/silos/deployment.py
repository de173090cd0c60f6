"""Files that start a silo or a coordinator by itself, and a proxy in front of the coordinator."""

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
# The coordinator as a service: a run that was stopped goes on from its last saved round, and a finished one ends.
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
# nginx in front of the coordinator, on the port that firewalls let out. The bytes pass through unopened: both ends
# check each other's certificate, and the proxy holds no key. Include this file outside of http {{ }}:
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
