BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE allocations (
	workload VARCHAR(40) NOT NULL, 
	epoch INTEGER NOT NULL, 
	grants TEXT NOT NULL, 
	since FLOAT NOT NULL, 
	until FLOAT, 
	PRIMARY KEY (workload, epoch)
);
INSERT INTO "allocations" VALUES('job-r',1,'[{"node":"n","kind":"cpu","devices":[[0,1000]],"memory_bytes":0,"cores":[],"dpu_milli":0,"storage_bytes":0,"role":""}]',2.0,NULL);
INSERT INTO "allocations" VALUES('job-y',1,'[{"node":"n","kind":"cpu","devices":[[1,1000]],"memory_bytes":0,"cores":[],"dpu_milli":0,"storage_bytes":0,"role":""}]',2.0,NULL);
INSERT INTO "allocations" VALUES('job-e',1,'[{"node":"n","kind":"cpu","devices":[[2,1000]],"memory_bytes":0,"cores":[],"dpu_milli":0,"storage_bytes":0,"role":""}]',2.0,9.0);
CREATE TABLE artifacts (
	id VARCHAR(40) NOT NULL, 
	seq INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	project VARCHAR(63) NOT NULL, 
	owner VARCHAR(80) NOT NULL, 
	created_at FLOAT NOT NULL, 
	spec TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	actor VARCHAR(80) NOT NULL, 
	action VARCHAR(80) NOT NULL, 
	subject VARCHAR(200) NOT NULL, 
	outcome VARCHAR(40) NOT NULL, 
	detail TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,5.0,'me','jobs.submit','job-r','ok','');
CREATE TABLE calls (
	id VARCHAR(40) NOT NULL, 
	at FLOAT NOT NULL, 
	project VARCHAR(63) NOT NULL, 
	key_id VARCHAR(40) NOT NULL, 
	service VARCHAR(63) NOT NULL, 
	prompt_tokens INTEGER NOT NULL, 
	completion_tokens INTEGER NOT NULL, 
	status INTEGER NOT NULL, 
	duration_s FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "calls" VALUES('c1',5.0,'lab','k1','desk',3,4,200,0.1);
CREATE TABLE checkpoints (
	job VARCHAR(40) NOT NULL, 
	step INTEGER NOT NULL, 
	rank INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	world INTEGER DEFAULT '0' NOT NULL, 
	whole INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (job, step, rank)
);
INSERT INTO "checkpoints" VALUES('job-r',40,0,'d',1,1);
CREATE TABLE counters (
	name VARCHAR(40) NOT NULL, 
	value INTEGER NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "counters" VALUES('workloads',5);
CREATE TABLE incidents (
	id INTEGER NOT NULL, 
	node VARCHAR(120) NOT NULL, 
	at FLOAT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "incidents" VALUES(1,'n',5.0,'{"sender":"karez","node":"n","code":"exit","level":"minor","occasion":"once","device":null,"detail":"","at":5.0}');
CREATE TABLE keys (
	id VARCHAR(40) NOT NULL, 
	name VARCHAR(80) NOT NULL, 
	project VARCHAR(63) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	created_at FLOAT NOT NULL, 
	revoked_at FLOAT, 
	PRIMARY KEY (id)
);
INSERT INTO "keys" VALUES('k1','me','lab','member','x',1.0,NULL);
CREATE TABLE marks (
	node VARCHAR(120) NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (node)
);
INSERT INTO "marks" VALUES('n','{"site":"s","cluster":"","supernode":"","labels":{"zone":"a"},"health":{"cpu:0":"separated"}}');
CREATE TABLE metrics (
	job VARCHAR(40) NOT NULL, 
	step INTEGER NOT NULL, 
	rank INTEGER NOT NULL, 
	loss FLOAT NOT NULL, 
	at FLOAT NOT NULL, 
	generation INTEGER NOT NULL, 
	PRIMARY KEY (job, step, rank)
);
INSERT INTO "metrics" VALUES('job-r',1,0,2.0,5.0,1);
CREATE TABLE nodes (
	id VARCHAR(120) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	seen_at FLOAT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "nodes" VALUES('n','ready',5.0,'{"id":"n","address":"127.0.0.1","engine_id":"","site":"site-1","cluster":"cluster-1","supernode":"","devices":[{"kind":"cpu","index":0,"model":"","milli":1000,"memory_bytes":0,"health":"healthy"},{"kind":"cpu","index":1,"model":"","milli":1000,"memory_bytes":0,"health":"healthy"},{"kind":"cpu","index":2,"model":"","milli":1000,"memory_bytes":0,"health":"healthy"},{"kind":"cpu","index":3,"model":"","milli":1000,"memory_bytes":0,"health":"healthy"}],"memory_bytes":8589934592,"labels":{},"limits":{},"state":"ready","seen_at":0.0,"windows":[]}');
CREATE TABLE projects (
	name VARCHAR(63) NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "projects" VALUES('lab','{"name":"lab","quota":{"cpu":4000},"cohort":"c","guarantee":{"cpu":2000},"lend":{},"weight":1}');
CREATE TABLE receipts (
	id VARCHAR(40) NOT NULL, 
	job VARCHAR(40) NOT NULL, 
	detected_at FLOAT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "receipts" VALUES('rcp-r-2','job-r',1.0,'{"id":"rcp-r-2","job":"job-r","generation":2,"cause":"rank 1 killed by signal 9","ranks":[1],"rung":"in-place","source":"shm","detected_at":1.0,"decided_at":1.1,"restored_at":1.2,"resumed_at":1.3,"step_before":10,"step_restored":10,"epoch":1,"code":"exit","confirmed_at":1.05,"nodes":["n"],"skipped":[],"before":"","key":"a49cbfcb0fb597fb","signature":"qCuS+bAlsmf9NlcnFZYw8tDFQcSoYmKqvq5HTLnfN00eRXmP5FslX2rkjI8dvQtdFFPPrgP0hJK4jlvUEaLNBg=="}');
INSERT INTO "receipts" VALUES('rcp-r-3','job-r',2.0,'{"id":"rcp-r-3","job":"job-r","generation":3,"cause":"rank 1 killed by signal 9","ranks":[1],"rung":"shrink","source":"shm","detected_at":2.0,"decided_at":2.1,"restored_at":2.2,"resumed_at":2.3,"step_before":10,"step_restored":10,"epoch":1,"code":"exit","confirmed_at":1.05,"nodes":["n"],"skipped":[],"before":"f10d6eadbd73783b24bd5619177b7754348dc0ecf6c0fc61c7275e1ce78bb489","key":"a49cbfcb0fb597fb","signature":"OT2Qa9zam7yQAD3jcKyIYVSSJ/tp5ZgijP9UqvP5nIXkgblSrc3Us7ZfFNvAfJOAPN0GsLqFUHzu8ms/gwT1BA=="}');
CREATE TABLE secrets (
	project VARCHAR(63) NOT NULL, 
	name VARCHAR(120) NOT NULL, 
	sealed BLOB NOT NULL, 
	PRIMARY KEY (project, name)
);
CREATE TABLE targets (
	workload VARCHAR(40) NOT NULL, 
	grants TEXT NOT NULL, 
	PRIMARY KEY (workload)
);
INSERT INTO "targets" VALUES('job-r','[{"node":"n","kind":"cpu","devices":[[0,1000]],"memory_bytes":0,"cores":[],"dpu_milli":0,"storage_bytes":0,"role":""},{"node":"n","kind":"cpu","devices":[[3,1000]],"memory_bytes":0,"cores":[],"dpu_milli":0,"storage_bytes":0,"role":""}]');
CREATE TABLE transitions (
	id INTEGER NOT NULL, 
	job VARCHAR(40) NOT NULL, 
	at FLOAT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "transitions" VALUES(1,'job-r',5.0,'{"at":5.0,"generation":3,"phase":"resuming","body":"{\"generation\":3,\"phase\":\"resuming\",\"faults\":1,\"best\":41,\"fault\":{\"cause\":\"rank 1 killed by signal 9\",\"ranks\":[1],\"rung\":\"in-place\",\"detected_at\":5.0,\"step_before\":41,\"code\":\"exit\",\"confirmed_at\":0.0,\"decided_at\":0.0,\"restored_at\":0.0,\"source\":\"\",\"step_restored\":0,\"nodes\":[\"n\"],\"skipped\":[]},\"past\":[[\"n\",4.5]],\"skipped\":[7],\"poison\":[3,1],\"joining\":[2],\"tainted\":[1],\"cuts\":[{\"after\":40,\"seats\":[0,1],\"born\":2}],\"slowest_start_s\":1.5}"}');
CREATE TABLE windows (
	node VARCHAR(120) NOT NULL, 
	starts_at FLOAT NOT NULL, 
	ends_at FLOAT NOT NULL, 
	reason TEXT NOT NULL, 
	PRIMARY KEY (node, starts_at)
);
INSERT INTO "windows" VALUES('n',10.0,20.0,'fan');
CREATE TABLE workloads (
	id VARCHAR(40) NOT NULL, 
	seq INTEGER NOT NULL, 
	sort VARCHAR(8) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	project VARCHAR(63) NOT NULL, 
	owner VARCHAR(80) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	priority INTEGER NOT NULL, 
	spec TEXT NOT NULL, 
	status TEXT NOT NULL, 
	wait_reason TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	started_at FLOAT, 
	ended_at FLOAT, 
	epoch INTEGER NOT NULL, 
	lease_owner VARCHAR(80), 
	lease_token VARCHAR(40), 
	lease_until FLOAT, 
	PRIMARY KEY (id)
);
INSERT INTO "workloads" VALUES('job-q',1,'job','q','default','me','queued',0,'{"name":"q","project":"default","kind":"batch","command":["python","t.py"],"recipe":"","settings":{},"gang":{"min":1,"want":2,"max":4,"each":[{"kind":"cpu","milli":1000,"memory_bytes":0,"storage_bytes":0,"cpu_milli":0,"dpu_milli":0,"models":[],"speed":1.0}],"topology":"any","among":{"on":["zone=a"],"off":["n9"]},"roles":[{"name":"load","workers":1,"each":[{"kind":"memory","milli":0,"memory_bytes":1048576,"storage_bytes":0,"cpu_milli":0,"dpu_milli":0,"models":[],"speed":1.0}],"command":[],"among":{"on":[],"off":[]}}],"spares":0},"code":"","inputs":{},"env":{},"secrets":[],"priority":0,"max_duration_s":null,"expected_duration_s":null,"deadline_s":null,"preemptible":false,"retry":{"limit":0,"causes":["node-lost","crashed"]},"ladder":["retry","in-place","replace","shrink","restart"],"ladder_fixed":false,"peers":1,"chaos":false}','{"reason":"","end":null,"ranks":[],"generation":0,"step":0,"total_steps":0,"loss":null,"outputs":{},"retries":0,"ran_s":0.0,"checkpoint_every_s":0.0}','',1.0,NULL,NULL,0,NULL,NULL,NULL);
INSERT INTO "workloads" VALUES('job-r',2,'job','r','default','me','running',0,'{"name":"r","project":"default","kind":"batch","command":["python","t.py"],"recipe":"","settings":{},"gang":{"min":1,"want":2,"max":4,"each":[{"kind":"cpu","milli":1000,"memory_bytes":0,"storage_bytes":0,"cpu_milli":0,"dpu_milli":0,"models":[],"speed":1.0}],"topology":"any","among":{"on":["zone=a"],"off":["n9"]},"roles":[{"name":"load","workers":1,"each":[{"kind":"memory","milli":0,"memory_bytes":1048576,"storage_bytes":0,"cpu_milli":0,"dpu_milli":0,"models":[],"speed":1.0}],"command":[],"among":{"on":[],"off":[]}}],"spares":0},"code":"","inputs":{},"env":{},"secrets":[],"priority":0,"max_duration_s":null,"expected_duration_s":null,"deadline_s":null,"preemptible":false,"retry":{"limit":0,"causes":["node-lost","crashed"]},"ladder":["retry","in-place","replace","shrink","restart"],"ladder_fixed":false,"peers":1,"chaos":false}','{"reason":"","end":null,"ranks":[],"generation":0,"step":0,"total_steps":0,"loss":null,"outputs":{},"retries":0,"ran_s":0.0,"checkpoint_every_s":0.0}','',1.0,4.0,NULL,1,'c','822bfb59f340fa4a',8.0);
INSERT INTO "workloads" VALUES('job-y',3,'job','y','default','me','yielding',0,'{"name":"y","project":"default","kind":"batch","command":["python","t.py"],"recipe":"","settings":{},"gang":{"min":1,"want":2,"max":4,"each":[{"kind":"cpu","milli":1000,"memory_bytes":0,"storage_bytes":0,"cpu_milli":0,"dpu_milli":0,"models":[],"speed":1.0}],"topology":"any","among":{"on":["zone=a"],"off":["n9"]},"roles":[{"name":"load","workers":1,"each":[{"kind":"memory","milli":0,"memory_bytes":1048576,"storage_bytes":0,"cpu_milli":0,"dpu_milli":0,"models":[],"speed":1.0}],"command":[],"among":{"on":[],"off":[]}}],"spares":0},"code":"","inputs":{},"env":{},"secrets":[],"priority":0,"max_duration_s":null,"expected_duration_s":null,"deadline_s":null,"preemptible":false,"retry":{"limit":0,"causes":["node-lost","crashed"]},"ladder":["retry","in-place","replace","shrink","restart"],"ladder_fixed":false,"peers":1,"chaos":false}','{"reason":"","end":null,"ranks":[],"generation":0,"step":0,"total_steps":0,"loss":null,"outputs":{},"retries":0,"ran_s":0.0,"checkpoint_every_s":0.0}','',1.0,4.0,NULL,1,'c','8702b09db4709aac',8.0);
INSERT INTO "workloads" VALUES('job-e',4,'job','e','default','me','succeeded',0,'{"name":"e","project":"default","kind":"batch","command":["python","t.py"],"recipe":"","settings":{},"gang":{"min":1,"want":2,"max":4,"each":[{"kind":"cpu","milli":1000,"memory_bytes":0,"storage_bytes":0,"cpu_milli":0,"dpu_milli":0,"models":[],"speed":1.0}],"topology":"any","among":{"on":["zone=a"],"off":["n9"]},"roles":[{"name":"load","workers":1,"each":[{"kind":"memory","milli":0,"memory_bytes":1048576,"storage_bytes":0,"cpu_milli":0,"dpu_milli":0,"models":[],"speed":1.0}],"command":[],"among":{"on":[],"off":[]}}],"spares":0},"code":"","inputs":{},"env":{},"secrets":[],"priority":0,"max_duration_s":null,"expected_duration_s":null,"deadline_s":null,"preemptible":false,"retry":{"limit":0,"causes":["node-lost","crashed"]},"ladder":["retry","in-place","replace","shrink","restart"],"ladder_fixed":false,"peers":1,"chaos":false}','{"reason":"","end":"done","ranks":[],"generation":0,"step":0,"total_steps":0,"loss":null,"outputs":{"model":"a"},"retries":0,"ran_s":0.0,"checkpoint_every_s":0.0}','',1.0,NULL,9.0,1,NULL,NULL,NULL);
INSERT INTO "workloads" VALUES('svc-1',5,'service','desk','default','me','queued',10,'{"name":"desk","model":"m","project":"default","engine":"llamacpp","replicas":1,"each":[{"kind":"cpu","milli":1000,"memory_bytes":0,"storage_bytes":0,"cpu_milli":0,"dpu_milli":0,"models":[],"speed":1.0}],"context_tokens":2048,"parallel":4,"priority":10}','{"reason":"","end":null,"ranks":[],"generation":0,"step":0,"total_steps":0,"loss":null,"outputs":{},"retries":0,"ran_s":0.0,"checkpoint_every_s":0.0}','',1.0,NULL,NULL,0,NULL,NULL,NULL);
CREATE INDEX ix_workloads_name ON workloads (sort, name);
CREATE INDEX ix_workloads_seq ON workloads (seq);
CREATE INDEX ix_workloads_state ON workloads (state);
CREATE INDEX ix_allocations_until ON allocations (until);
CREATE INDEX ix_receipts_job ON receipts (job);
CREATE INDEX ix_transitions_job ON transitions (job);
CREATE INDEX ix_incidents_node ON incidents (node);
CREATE INDEX ix_artifacts_name ON artifacts (name);
CREATE INDEX ix_calls_project ON calls (project, service);
COMMIT;
