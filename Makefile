# Every command of the project. `make` alone lists them.
STACK ?= local
SPEED ?= 60
# More than cores: most tests wait for a process or a poll.
WORKERS ?= 6
# Whether a stack was asked for.
IS_ASKED := $(if $(filter file,$(origin STACK)),,yes)

# What is given is data: make expands none of it, here or when it hands it to a command.
# Make exports what stands on its command line, and expands it then; so that goes for any name.
NAMES := STACK WORKERS NAME RELEASE TO FROM SINCE SOURCE PICTURE
COUNTS := SPEED INSTANCE DAYS REPLICA SESSIONS PORT FIRST_TOKEN PROMPT ANSWER SHARED EACH DOLLARS
LISTS := CLIENTS RATES
SWITCHES := JSON WATCH FOLLOW ONCE RECORD WRITE
GIVEN := MSG ON DELETE BUDGET LOADS CI BY $(NAMES) $(COUNTS) $(LISTS) $(SWITCHES)
# Other programs export these names, so they count on the command line alone.
ON_THE_LINE_ALONE := PORT PROMPT ANSWER SHARED EACH FIRST_TOKEN PICTURE $(LISTS)
FOREIGN := $(foreach name,$(ON_THE_LINE_ALONE),$(if $(filter environment,$(firstword \
  $(origin $(name)))),$(name)))
# An option of a command, and its value if one was given.
option = $(if $(filter-out $(FOREIGN),$(2)),$(if $(value $(2)),$(1) $(value $(2))))
ON_THE_LINE := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
$(foreach name,$(sort $(GIVEN) $(ON_THE_LINE)),$(if $(filter-out undefined,$(firstword \
  $(origin $(name)))),$(eval override $(name) := $$(value $(name)))))
# It reaches its command through the environment alone, so no shell reads it either.
export MSG

# What stands in a command is a plain name or a number, before any shell reads it.
LETTERS := a b c d e f g h i j k l m n o p q r s t u v w x y z \
	A B C D E F G H I J K L M N O P Q R S T U V W X Y Z
DIGITS := 0 1 2 3 4 5 6 7 8 9
COMMA := ,
without = $(eval REST := $$(value $(1)))$(foreach one,$(2),$(eval REST := $$(subst $(one),,$$(REST))))
is_foreign = $(strip $(call without,$(1),$(2)))$(REST)$(filter -%,$(value $(1)))
$(foreach name,$(filter-out $(FOREIGN),$(NAMES)),$(if $(call is_foreign,$(name),$(LETTERS) $(DIGITS) . _ -),$(error \
  $(name) is no name: letters, digits, dots, dashes and underscores, and no dash first; nothing was done)))
$(foreach name,$(filter-out $(FOREIGN),$(COUNTS)),$(if $(call is_foreign,$(name),$(DIGITS) .),$(error \
  $(name) is no number: digits and a dot; nothing was done)))
without_commas = $(eval LISTED := $$(subst $$(COMMA),,$$(value $(1))))
$(foreach name,$(filter-out $(FOREIGN),$(LISTS)),$(call without_commas,$(name))$(if $(call is_foreign,LISTED,$(DIGITS) .),$(error \
  $(name) is no list of numbers: digits, dots and commas, such as 1$(COMMA)4$(COMMA)16; nothing was done)))
$(if $(call is_foreign,BUDGET,$(LETTERS) $(DIGITS) . /),$(error \
  BUDGET is no budget: BUDGET=300/day is 300 dollars for a day of UTC; nothing was done))
BLANK := $(COMMA) $(COMMA)
BLANK := $(subst $(COMMA),,$(BLANK))
$(eval LISTED := $$(subst $$(BLANK),,$$(value LOADS)))
$(if $(call is_foreign,LISTED,$(DIGITS) :),$(error \
  LOADS is no list of loads: CLIENTS:REQUESTS[:TOKENS_IN:TOKENS_OUT] with blanks between them; nothing was done))
$(foreach name,STACK WORKERS SPEED,$(if $(value $(name)),,$(error \
  $(name) is empty: leave it out or give one; nothing was done)))

# Six workers would compile every test anew, a third of a minute of CPU.
unexport PYTHONDONTWRITEBYTECODE
# Measured where it is looked at, once for each change.
COVERAGE := $(if $(CI),--cov)
# As many operations as 32 machines take beside each other: 2 each, and 8.
export PULUMI_PARALLEL ?= 72
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.tools/bin:$(PATH)
# The commands that know both: `ON=account` is pulumi's own backend instead of the emulator's.
ACCOUNT := $(if $(filter account,$(ON)),--account)
PLACE := $(if $(filter account,$(ON)),setup,emulator)
ON_EMULATOR := python -m toolchain.on_emulator --stack $(STACK)
ASKED := $(if $(IS_ASKED),$(STACK))

# Said before anything runs: whoever believes that `make down` has ended a machine that it has never
# looked at pays for it, and so does whoever means the account and reaches the emulator by a typo.
ifneq ($(filter-out account,$(ON)),)
  $(error ON=$(ON) is no place: leave it out for the emulator, or say ON=account; nothing was done)
endif
ifneq ($(filter-out 1,$(DELETE)),)
  $(error DELETE=$(DELETE) is neither yes nor no: DELETE=1 ends them, without it they are listed; nothing was done)
endif
$(foreach name,$(SWITCHES),$(if $(filter-out 1,$(value $(name))),$(error \
  $(name)=$(value $(name)) is neither yes nor no: leave it out, or say $(name)=1; nothing was done)))
ifneq ($(filter-out price tokens boot,$(BY)),)
  $(error BY=$(BY) is no order: price, tokens or boot; nothing was done)
endif
OF_STACK := $(if $(ASKED), --stack $(ASKED))
# A program reads standard output, so what is set up on the way is reported beside it.
ASIDE := $(if $(JSON),>&2)
DAY_TWO = $(ACCOUNT) $(if $(JSON),--json)
INSTEAD_up := `pulumi up$(OF_STACK)`
INSTEAD_preview := `pulumi preview$(OF_STACK)`
INSTEAD_refresh := `pulumi refresh$(OF_STACK)`
INSTEAD_outputs := `pulumi stack output$(OF_STACK)`
INSTEAD_down := `pulumi destroy$(OF_STACK)`
INSTEAD_chat := what README.md shows under `Use it`
OF_ONE_STACK := pin release rollback adopt measure load scale status logs history compare boots \
	dashboard exporter
ifneq ($(ACCOUNT),)
  $(foreach goal,$(filter up preview refresh outputs chat down,$(MAKECMDGOALS)),$(error \
    `make $(goal)` knows the emulator alone and has done nothing; on the account it is $(INSTEAD_$(goal)), in `make shell`))
  $(foreach goal,$(if $(ASKED),,$(filter $(OF_ONE_STACK),$(MAKECMDGOALS))),$(error \
    `make $(goal) ON=account` has to know which stack: add STACK=...; nothing was done))
endif
NEEDED_release := NAME
NEEDED_promote := RELEASE TO
NEEDED_adopt := INSTANCE
NEEDED_scale := BUDGET
$(foreach goal,$(MAKECMDGOALS),$(foreach name,$(NEEDED_$(goal)),$(if $($(name)),,$(error \
  `make $(goal)` needs $(name)=...: see `make`; nothing was done))))

.DEFAULT_GOAL := help
.PHONY: help setup emulator up preview refresh outputs chat down shell check types words rules format test test-fast lock \
	status logs history doctor compare boots load dashboard exporter field-report pin release promote rollback \
	promotion adopt cost orphans overdue scale settings docs pages day-two load-pages pictures dashboard-picture \
	faults more-faults faults-of-several rehearsal test-vllm benchmark router-benchmark scale-out \
	scale-simulation many measure

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

setup: ## set up whatever is missing: environment, packages, Pulumi CLI
	@python3 toolchain/set_up.py $(ASIDE)

emulator: setup ## start Vast.ai on this machine, if it does not run yet
	@python -m emulator up --port 0 --speed $(SPEED) --credit 10000 $(ASIDE)

up: emulator ## rent, serve and ask the model one question, on the emulator
	@$(ON_EMULATOR) up
	@python -m toolchain.chat $(STACK) --panel

preview: emulator ## say what `make up` would do
	@$(ON_EMULATOR) preview

refresh: emulator ## look at what became of it
	@$(ON_EMULATOR) refresh

outputs: emulator ## print the stack's outputs
	@$(ON_EMULATOR) outputs

chat: emulator ## ask the model: make chat MSG="..."
	@python -m toolchain.chat $(STACK)

down: emulator ## end the bill, show that it ended, stop the emulator
	@$(ON_EMULATOR) destroy
	@python -m emulator status
	@python -m emulator down --unless-used

pin: $(PLACE) ## pin a stack's image and commits to what they are now: make pin STACK=dev
	@python -m toolchain.pin --stack $(STACK) $(ACCOUNT)

release: $(PLACE) ## write a release of what a stack runs: make release NAME=... STACK=dev
	@python -m toolchain.release "$(NAME)" --stack $(STACK) $(ACCOUNT)

promote: $(PLACE) ## set a release in a stack and preview it: make promote RELEASE=... FROM=dev TO=staging
	@python -m toolchain.promote release "$(RELEASE)" --to "$(TO)" --from "$(FROM)" $(ACCOUNT)

rollback: $(PLACE) ## set the release that led to this one, and preview it: make rollback STACK=prod
	@python -m toolchain.promote rollback --stack $(STACK) $(ACCOUNT)

adopt: $(PLACE) ## take a machine rented by hand into a stack: make adopt INSTANCE=... STACK=dev
	@python -m toolchain.adopt "$(INSTANCE)" --stack $(STACK) $(ACCOUNT)

status: $(PLACE) ## say how a stack is, how fast, what it costs and what ends it; WATCH=1 goes on
	@python -m toolchain.day_two.status --stack $(STACK) $(DAY_TWO) $(if $(WATCH),--watch)

logs: $(PLACE) ## what a stack's programs wrote: [SOURCE=boot|vllm|supervisor|router] [SINCE=10m] [FOLLOW=1] [REPLICA=0]
	@python -m toolchain.day_two.logs --stack $(STACK) $(DAY_TWO) $(if $(SOURCE),--source $(SOURCE)) \
	  $(if $(SINCE),--since $(SINCE)) $(if $(REPLICA),--replica $(REPLICA)) $(if $(FOLLOW),--follow)

history: $(PLACE) ## what was done to a stack: when, which release, which machines, dollars, outcome
	@python -m toolchain.day_two.history --stack $(STACK) $(DAY_TWO) $(if $(DAYS),--days $(DAYS))

dashboard: $(PLACE) ## write what Prometheus and Grafana need: [BUDGET=300/day] [FIRST_TOKEN=2] [PORT=9497]
	@python -m toolchain.day_two.dashboard --stack $(STACK) $(DAY_TWO) \
	  $(if $(BUDGET),--budget "$(BUDGET)") $(call option,--first-token,FIRST_TOKEN) \
	  $(call option,--port,PORT)

exporter: $(PLACE) ## serve a stack's money and ends to Prometheus, on loopback, until Ctrl-C: [PORT=9497]
	@python -m toolchain.day_two.dashboard.exporter --stack $(STACK) $(DAY_TWO) \
	  $(call option,--port,PORT)

day-two: setup ## play a stack's days on an emulator, and write docs/day-two*.md (7 minutes)
	@python -m toolchain.day_two.story

doctor: ## say what is wrong with a set-up, before it costs something; reads only
	@python3 -m toolchain.day_two.doctor $(if $(ASKED),--stack $(ASKED)) $(DAY_TWO)

cost: $(PLACE) ## compare charges with the estimate, also of a destroyed stack: make cost STACK=dev
	@python -m toolchain.cost $(if $(ASKED),--stack $(ASKED)) $(if $(DAYS),--days $(DAYS)) $(DAY_TWO)

compare: $(PLACE) ## what can serve the stack's model, on today's market: [BY=price|tokens|boot] [JSON=1]
	@python -m toolchain.day_two.compare --stack $(STACK) $(DAY_TWO) $(if $(BY),--by $(BY))

boots: $(PLACE) ## draw how a stack's machines started, the newest as a waterfall: make boots STACK=dev
	@python -m toolchain.day_two.boots --stack $(STACK) $(DAY_TWO)

load: $(PLACE) ## test a stack under load: [CLIENTS=1,4,16|RATES=1,2] [PROMPT= ANSWER= SHARED= PICTURE= EACH=] [BUDGET=2]
	@python -m toolchain.day_two.load --stack $(STACK) $(DAY_TWO) $(call option,--clients,CLIENTS) \
	  $(call option,--rates,RATES) $(call option,--prompt,PROMPT) $(call option,--answer,ANSWER) \
	  $(call option,--shared,SHARED) $(call option,--picture,PICTURE) $(call option,--each,EACH) \
	  $(if $(BUDGET),--budget "$(BUDGET)")

field-report: $(PLACE) ## show what RECORD=1 has kept, without anything of yours; WRITE=1 writes it
	@python -m toolchain.day_two.field_report $(DAY_TWO) $(if $(WRITE),--write)

orphans: $(PLACE) ## list contracts that no stack knows and what they cost; DELETE=1 ends them
	@python -m toolchain.orphans $(if $(ACCOUNT),,--emulator) $(if $(DELETE),--delete)

overdue: $(PLACE) ## list machines that are there past their own recorded end; DELETE=1 ends them
	@python -m toolchain.overdue $(if $(ACCOUNT),,--emulator) $(if $(ASKED),--stack $(ASKED)) $(if $(DELETE),--end)

scale: $(PLACE) ## change how many replicas run, by the load: make scale BUDGET=300/day STACK=dev [ONCE=1]
	@python -m toolchain.scale --stack $(STACK) --budget "$(BUDGET)" $(ACCOUNT) $(if $(ONCE),--once) \
	  $(if $(SESSIONS),--sessions $(SESSIONS))

shell: setup ## a shell with pulumi, python and vastai on its PATH
	@$${SHELL:-/bin/sh}

settings: setup ## write Pulumi.yaml's settings and docs/settings.md out of components/settings.py
	@python -m toolchain.settings

check: setup ## lint, formatting, types, layers, words, sizes, generated files
	@$(MAKE) --no-print-directory -j 2 rules types words

# Two cores at once: each of the three takes about as long.
types:
	@mypy

words:
	@python -m toolchain.words

rules:
	@ruff check --quiet .
	@ruff format --check --quiet .
	@shellcheck --norc components/on_host/*.sh .ci/run
	@python -m toolchain.settings --check
	@python -m toolchain.prose --check
	@python -m toolchain.file_sizes
	@report=$$(lint-imports --no-cache) || { echo "$$report"; exit 1; }

format: setup ## put the code into its form
	@ruff format . && ruff check --fix .

test: check ## lint, type-check and run every test
	@pytest -n $(WORKERS) $(COVERAGE)

test-fast: check ## the same without Pulumi's CLI: two minutes
	@pytest -n $(WORKERS) -m "unit or process" \
	  --ignore=tests/cli --ignore=tests/faults

scale-simulation: setup ## play a day of traffic against the loop, and write docs/scaling-simulation.md
	@python -m toolchain.scale.simulate

pages: setup ## play boots, a comparison and a report, and write what their documents show
	@python -m toolchain.day_two.pages

load-pages: setup ## play load tests on an emulator, and write docs/load.md (half an hour)
	@python -m toolchain.day_two.load.pages

pictures: setup ## record `make preview` and `make up` on an emulator, and draw the other pictures
	@python -m toolchain.pictures
	@python -m toolchain.scale_out.picture

dashboard-picture: setup ## play a stack under load, and draw docs/pictures/dashboard.svg (8 minutes)
	@python -m tests.helpers.dashboard_picture

docs: setup ## write docs/troubleshooting.md out of the error classes
	@python -m toolchain.troubleshooting

promotion: setup ## play dev, staging and prod on an emulator, write docs/promotion.md
	@python -m tests.cli.promotion

faults: setup ## play every fault and every death, and write docs/faults.md (20 minutes on 2 cores)
	@python -m tests.faults.report whole

more-faults: setup ## play the deaths of other replacements, write docs/more-faults.md (10 minutes)
	@python -m tests.faults.report more

faults-of-several: setup ## play deaths while several machines change, write docs/faults-of-several.md
	@python -m tests.faults.report several

rehearsal: setup ## measure what a rehearsal tells how early, and write docs/rehearsal.md (30 minutes)
	@python -m tests.faults.report rehearsal

test-vllm: setup ## run the whole path with a real vLLM on the CPU (6 GB, 20 minutes)
	@python -m toolchain.real_vllm setup
	@REAL_VLLM=1 pytest tests/real_vllm

measure: $(PLACE) ## time a running stack under load: STACK=dev [DOLLARS=2] [LOADS="1:6 64:192"]
	@python -m toolchain.measure $(STACK) $(ACCOUNT) $(if $(DOLLARS),--max-dollars $(DOLLARS)) \
	  $(if $(LOADS),--loads "$(LOADS)")

benchmark: setup ## compare a changed flag with a replaced machine, on the emulator
	@python -m tests.cli.benchmark

scale-out: setup ## play several machines' life under load, write docs/scale-out.md (20 minutes)
	@python -m tests.cli.scale_out

router-benchmark: setup ## measure the router: latency, requests/s, caches (3 minutes)
	@python -m toolchain.scale_out.benchmark

many: setup ## time 16 machines against one, on the emulator (40 minutes)
	@python -m tests.cli.many

lock: setup ## write the pinned, hashed requirements anew
	@for kind in "" -dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	    requirements$$kind.in -o requirements$$kind.txt; done
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command "make lock" \
	  toolchain/real_vllm/requirements.in --override toolchain/real_vllm/overrides.txt \
	  -o toolchain/real_vllm/requirements.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command "make lock" \
	  toolchain/day_two/load/requirements.in --override toolchain/day_two/load/overrides.txt \
	  -o toolchain/day_two/load/requirements.txt
