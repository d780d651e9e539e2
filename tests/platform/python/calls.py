"""What the PyPI package cloudfoundry-client does by API v3, on a running platform.

python3 calls.py API PASSWORD PACKAGE: the API's address, the password of admin, and an app as a zip.
It ends with an exception at the first thing that is not as it should be.
"""

import json
import sys
import time
import zipfile

from cloudfoundry_client.client import CloudFoundryClient
from cloudfoundry_client.errors import InvalidStatusCode
from cloudfoundry_client.v3.entities import ToOneRelationship
from cloudfoundry_client.v3.packages import PackageType
from cloudfoundry_client.v3.routes import LoadBalancing

PATIENCE = 90
APP = "snake"


def until(what, look):
    """Waits until there is something true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise TimeoutError(what)


def refused(status, call, *arguments, **named):
    """Checks that a call is refused; the code of the error."""
    try:
        call(*arguments, **named)
    except InvalidStatusCode as error:
        assert error.status_code.value == status, error
        return error.body["errors"][0]["code"]
    raise AssertionError(f"{call} is not refused")


class Calls:
    def __init__(self, api, password, package):
        self.api, self.package = api, package
        self.client = CloudFoundryClient(api)
        self.client.init_with_user_credentials("admin", password)
        self.v3 = self.client.v3

    def tokens(self):
        """A refused token is renewed, and a refresh token is enough to go on."""
        self.client._access_token = "no.such.token"
        assert self.v3.organizations.len() > 0
        self.client.init_with_token(self.client.refresh_token)
        assert self.v3.organizations.len() > 0

    def orgs_and_spaces(self):
        v3 = self.v3
        org = v3.organizations.create("python", False, meta_labels={"made-by": "test"})
        self.org = org["guid"]
        assert v3.organizations.get(self.org)["metadata"]["labels"] == {"made-by": "test"}
        v3.organizations.update(self.org, "python-2", suspended=False)
        assert v3.organizations.get_first(names="python-2")["guid"] == self.org
        assert refused(422, v3.organizations.create, "python-2", False) == 10008
        assert v3.organizations.get_default_domain(self.org)["name"].startswith("apps.")
        assert v3.organizations.get_default_isolation_segment(self.org).guid is None
        assert {domain["name"] for domain in v3.organizations.list_domains(self.org)}

        self.space = v3.spaces.create("den", self.org)["guid"]
        v3.spaces.update(self.space, "den-2")
        space = v3.spaces.get_first(organization_guids=self.org, include="organization")
        assert (space["name"], space.organization()["guid"]) == ("den-2", self.org)
        assert v3.spaces.get_assigned_isolation_segment(self.space).guid is None
        # More than a page of them.
        for number in range(3):
            v3.spaces.create(f"page-{number}", self.org)
        spaces = v3.spaces.list(organization_guids=self.org, per_page=1, order_by="name")
        assert spaces.total_results == 4
        names = [space["name"] for space in spaces]
        assert names == ["den-2", "page-0", "page-1", "page-2"], names

    def domains_and_routes(self):
        v3 = self.v3
        shared = next(domain for domain in v3.domains.list() if domain["name"].startswith("apps."))
        own = v3.domains.create("snakes.example", organization=ToOneRelationship(self.org))
        assert own["relationships"]["organization"].guid == self.org
        v3.domains.update(own["guid"], meta_labels={"a": "b"})
        assert v3.domains.get(own["guid"])["metadata"]["labels"] == {"a": "b"}
        names = {domain["name"] for domain in v3.domains.list_domains_for_org(self.org)}
        assert names >= {shared["name"], "snakes.example"}, names

        self.route = v3.routes.create(
            self.space, shared["guid"], host=APP, load_balancing=LoadBalancing.ROUND_ROBIN
        )
        assert self.route["url"] == f"{APP}.{shared['name']}"
        assert refused(422, v3.routes.create, self.space, shared["guid"], host=APP) == 10008
        v3.routes.update(self.route["guid"], load_balancing=LoadBalancing.LEAST_CONNECTION)
        route = v3.routes.get_first(hosts=APP, include="domain")
        assert route["options"]["loadbalancing"] == "least-connection"
        assert route.domain()["guid"] == shared["guid"]
        other = v3.routes.create(self.space, own["guid"], path="/path")
        assert other["url"] == "snakes.example/path"
        v3.domains.remove(own["guid"], asynchronous=False)
        assert v3.routes.get_first(guids=other["guid"]) is None

    def push(self):
        v3, client = self.v3, self.client
        # The client has no call of its own for these.
        body = {"name": APP, "relationships": {"space": ToOneRelationship(self.space)}}
        app = client.post(f"{self.api}/v3/apps", json=body).json()["guid"]
        self.app = v3.apps.get(app)
        assert self.app["state"] == "STOPPED"
        assert self.app.space()["guid"] == self.space
        package = v3.packages.create(app, PackageType.BITS, meta_labels={"a": "b"})
        with open(self.package, "rb") as bits:
            package.upload(files={"bits": ("app.zip", bits, "application/zip")})
        until("the package", lambda: v3.packages.get(package["guid"])["state"] == "READY")
        assert [p["guid"] for p in v3.apps.list_packages(app)] == [package["guid"]]
        download = client.get(package["links"]["download"]["href"])
        with open("downloaded.zip", "wb") as file:
            file.write(download.content)
        assert "app.py" in zipfile.ZipFile("downloaded.zip").namelist()

        build = client.post(f"{self.api}/v3/builds", json={"package": {"guid": package["guid"]}}).json()
        link = build["links"]["self"]["href"]
        build = until("the build", lambda: (b := client.get(link).json())["state"] != "STAGING" and b)
        assert build["state"] == "STAGED", build
        droplet = v3.droplets.get(build["droplet"]["guid"])
        assert droplet["state"] == "STAGED" and "web" in droplet["process_types"], droplet
        v3.droplets.update(droplet["guid"], meta_labels={"good": "yes"})
        for listed in (v3.apps.list_droplets(app), v3.packages.list_droplets(package["guid"])):
            assert [d["metadata"]["labels"] for d in listed] == [{"good": "yes"}]
        current = f"{self.api}/v3/apps/{app}/relationships/current_droplet"
        client.patch(current, json={"data": {"guid": droplet["guid"]}})
        assert v3.apps.get(app).current_droplet()["guid"] == droplet["guid"]
        destinations = {"destinations": [{"app": {"guid": app}}]}
        client.post(self.route["links"]["destinations"]["href"], json=destinations)
        assert [r["guid"] for r in v3.apps.list_routes(app)] == [self.route["guid"]]

        self.app.start()
        process = v3.processes.get_first(app_guids=app, types="web")
        self.wait_running(process, 1)
        assert "applications" in v3.apps.get_manifest(app)
        assert APP in json.dumps(v3.apps.get_env(app)["application_env_json"])

    def wait_running(self, process, number):
        def running():
            states = [instance["state"] for instance in process.stats()]
            return states == ["RUNNING"] * number

        until(f"{number} instances run", running)

    def processes(self):
        process = next(self.app.processes())
        assert process["type"] == "web"
        assert process.app()["guid"] == self.app["guid"]
        process.scale(data={"instances": 2})
        self.wait_running(process, 2)
        self.v3.apps.restart(self.app["guid"])
        self.wait_running(process, 2)
        self.app.stop()
        assert self.v3.apps.get(self.app["guid"])["state"] == "STOPPED"
        until("all are gone", lambda: all(i["state"] == "DOWN" for i in process.stats()))

    def copies(self):
        """Packages go from app to app."""
        body = {"name": "copy", "relationships": {"space": ToOneRelationship(self.space)}}
        app = self.client.post(f"{self.api}/v3/apps", json=body).json()["guid"]
        first = next(self.v3.apps.list_packages(self.app["guid"]))
        copy = self.v3.packages.copy(first["guid"], app)
        until("the copy", lambda: self.v3.packages.get(copy["guid"])["state"] == "READY")

    def what_an_operator_reads(self):
        v3 = self.v3
        types = {event["type"] for event in v3.audit_events.list(target_guids=self.app["guid"])}
        assert {"audit.app.create", "audit.app.start", "audit.app.stop"} <= types, types
        assert [stack["name"] for stack in v3.stacks.list()] == ["base"]
        stack = next(v3.stacks.list())
        assert APP in {app["name"] for app in v3.stacks.list_apps(stack["guid"])}
        flag = v3.feature_flags.update("task_creation", False, "not here")
        assert flag["custom_error_message"] == "not here"
        assert not v3.feature_flags.get("task_creation")["enabled"]
        v3.feature_flags.update("task_creation", True)
        assert v3.organization_quotas.len() == 1
        for empty in (
            v3.isolation_segments,
            v3.service_brokers,
            v3.service_credential_bindings,
            v3.service_instances,
            v3.service_offerings,
            v3.service_plans,
        ):
            list(empty.list())
        assert v3.security_groups.len() > 0
        list(v3.users.list())
        list(v3.roles.list(include="user"))

    def buildpacks(self):
        v3 = self.v3
        names = [buildpack["name"] for buildpack in v3.buildpacks.list()]
        assert "python_buildpack" in names, names
        made = v3.buildpacks.create("mine", position=1)
        with zipfile.ZipFile("mine.zip", "w") as archive:
            archive.writestr("bin/detect", "#!/bin/sh\nexit 1\n")
        uploaded = v3.buildpacks.upload(made["guid"], "mine.zip")
        assert (uploaded["state"], uploaded["filename"]) == ("READY", "mine.zip"), uploaded
        v3.buildpacks.update(made["guid"], "mine", position=1, enabled=False)
        assert not v3.buildpacks.get(made["guid"])["enabled"]
        v3.buildpacks.remove(made["guid"], asynchronous=False)
        assert [buildpack["name"] for buildpack in v3.buildpacks.list()] == names

    def removal(self):
        v3 = self.v3
        job = v3.apps.remove(self.app["guid"])
        done = v3.jobs.wait_for_job_completion(job)
        assert (done["state"], done["operation"]) == ("COMPLETE", "app.delete"), done
        assert refused(404, v3.apps.get, self.app["guid"]) == 10010
        v3.routes.remove(self.route["guid"])
        until("the route is gone", lambda: v3.routes.get_first(guids=self.route["guid"]) is None)
        v3.organizations.remove(self.org, asynchronous=False)
        assert v3.organizations.get_first(names="python-2") is None
        assert v3.spaces.get_first(guids=self.space) is None


def main():
    calls = Calls(*sys.argv[1:])
    for step in (
        calls.tokens,
        calls.orgs_and_spaces,
        calls.domains_and_routes,
        calls.push,
        calls.processes,
        calls.copies,
        calls.what_an_operator_reads,
        calls.buildpacks,
        calls.removal,
    ):
        started = time.monotonic()
        step()
        print(f"{step.__name__}: {time.monotonic() - started:.1f} s", flush=True)


main()
