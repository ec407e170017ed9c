import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { COMMANDS, SYSTEMS } from '../../lib/cli/commands.js'
import { flagOf } from '../../lib/kit/options.js'
import { cliPage } from '../../scripts/docs/cli-page.js'
import { checkLinks } from '../../scripts/docs/links.js'

const site = mkdtempSync(join(tmpdir(), 'voxtorch-site-'))
afterAll(() => rmSync(site, { recursive: true, force: true }))

test('the page of commands has every command, and every option that --help shows', () => {
  const sections = new Map(
    cliPage()
      .split(/^## /m)
      .map((section) => [section.slice(0, section.indexOf('\n')), section]),
  )
  const rules = [
    ...COMMANDS.map((rule) => [`voxtorch ${rule.name}`, rule] as const),
    ...Object.entries(SYSTEMS).flatMap(([system, verbs]) =>
      verbs.map((rule) => [`voxtorch ${system} ${rule.name}`, rule] as const),
    ),
  ]
  expect([...sections.keys()].slice(1).sort()).toEqual(rules.map(([name]) => name).sort())
  for (const [name, { options }] of rules) {
    const shown = Object.keys(options).filter((option) => !options[option]?.hidden)
    const listed = [...(sections.get(name) ?? '').matchAll(/^\| `(--[a-z0-9-]+)/gm)].map(([, flag]) => flag)
    expect(listed, name).toEqual(shown.map(flagOf))
  }
  // Outside of code nothing is taken for a tag.
  expect(cliPage().replace(/```[\s\S]*?```|`[^`\n]*`/g, '')).not.toMatch(/[<>]/)
})

test('links of a built site are followed to files and to places in them', () => {
  mkdirSync(join(site, 'guide'))
  const write = (page: string, ...links: string[]) =>
    writeFileSync(
      join(site, page),
      `<h2 id="here">${links.map((link) => `<a class="x" href="${link}">x</a>`).join('')}</h2>`,
    )
  write('index.html', '/guide/memory#here', '#here', 'https://example.org/nowhere')
  write('guide/memory.html', '../', './memory')
  expect(checkLinks(site)).toEqual({ pages: 2, links: 4 })
  write('guide/memory.html', '/guide/nowhere', './memory#nowhere', '/')
  expect(() => checkLinks(site)).toThrow(
    /2 links lead nowhere:\nguide\/memory.html: \/guide\/nowhere\nguide\/memory.html: .\/memory#nowhere/,
  )
})

test('comments of the reference link to what it has, and typedoc warns of nothing', { timeout: 600_000 }, () => {
  const options = ['--options', 'docs/typedoc.json', '--emit', 'none', '--out', join(site, 'api')]
  const { status, stdout, stderr } = spawnSync(process.execPath, ['node_modules/typedoc/bin/typedoc', ...options], {
    encoding: 'utf8',
  })
  expect({ status, warnings: `${stdout}${stderr}`.match(/.*\bwarning\b.*/g) ?? [] }).toEqual({
    status: 0,
    warnings: [],
  })
})
