import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { COMMANDS, SYSTEMS } from '../../lib/cli/commands.js'
import { flagOf } from '../../lib/kit/options.js'
import { cliPage } from '../../scripts/docs/cli-page.js'
import { checkLinks } from '../../scripts/docs/links.js'
import { docPages } from '../doc-pages.js'

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

test('npm run docs builds the site, without a warning and without a dead link', () => {
  // `.ci/run` has just run it, and counts its failure itself.
  if (process.env.VOXTORCH_DOCS_BUILT !== '1') {
    const { status, stdout, stderr } = spawnSync('npm', ['run', 'docs'], { encoding: 'utf8' })
    expect({ status, said: status === 0 ? '' : `${stdout}${stderr}`.slice(-4000) }).toEqual({ status: 0, said: '' })
  }
  // Each import of the package has a page of the reference, and each page of docs/ one of the site.
  const { exports } = JSON.parse(readFileSync('package.json', 'utf8')) as {
    exports: Record<string, { default: string }>
  }
  const reference = readFileSync('docs/api/index.md', 'utf8')
  for (const [subpath, target] of Object.entries(exports)) {
    // voxtorch/languagebind is the former name of voxtorch/emotion.
    if (subpath === './package.json' || subpath === './languagebind') continue
    const name = `voxtorch${subpath.slice(1)}`
    expect(reference, name).toContain(`| \`${name}\` |`)
    const folder = target.default.replace('./dist/', '').replace('/index.js', '')
    if (subpath !== '.') expect(existsSync(join('docs/.vitepress/dist/api', folder, 'index.html')), name).toBe(true)
  }
  for (const page of docPages) {
    const html = page.replace(/^docs\//, 'docs/.vitepress/dist/').replace(/\.md$/, '.html')
    expect(existsSync(html), html).toBe(true)
  }
})
