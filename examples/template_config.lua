-- Make a configuration file from labels, the environment and a template, and publish it.
--
-- Usage: APP_PORT=9000 lua5.4 template_config.lua [TARGET]     by default a new scratch directory
if arg[1] == "--help" then return print("usage: lua5.4 template_config.lua [TARGET]") end
if arg[2] or (arg[1] or ""):find("^%-") then
    io.stderr:write("usage: lua5.4 template_config.lua [TARGET]\n")
    os.exit(2)
end

local atomicwriter = require "atomicwriter"
local env = require "atomicwriter.env"
local labels = require "atomicwriter.labels"
local template = require "atomicwriter.template"

-- In the format of the Kubernetes downward API. In a pod this would come from a file.
local LABELS = [[
app="shop"
tier="frontend"
]]

-- In a project this would be a file of its own: see template.render_file.
local TEMPLATE = [[
# {{ labels.app }}
listen = {{ env.APP_PORT | default("8080") }}
{% for key, value in pairs(labels) do %}
tag = {{ key .. "=" .. value | quote }}
{% end %}
]]

local target = arg[1] or io.popen("mktemp -d"):read()
local writer = assert(atomicwriter.new(target, { create = true }))
local page = assert(template.compile(TEMPLATE, { name = "app.conf.tmpl" }))
local text = assert(page:render {
    env = assert(env.match("APP_*")), -- and nothing else of the environment
    labels = assert(labels.parse(LABELS)),
})
local result = assert(writer:write { ["app.conf"] = text })
writer:close()

print(result.changed and "published" or "nothing to change", target, result.version)
io.write(text)
