import { type Setting, unchecked } from '../../../base/settings.js'
import { CONFIGURATION_SETTINGS, type SalmonnConfiguration } from './configuration.js'

/** Definition and effect of a key; a key without effect has a reason instead. */
export type Rule = Setting & { set: (to: SalmonnConfiguration, value: never) => void }

export type Sections = { readonly [key: string]: Rule | { ignored: string } | Sections }

type Part = keyof typeof CONFIGURATION_SETTINGS
type NameIn<P extends Part> = (typeof CONFIGURATION_SETTINGS)[P]['names'][number]

/** Return a rule that stores the value under a name of a part of the configuration. */
export const into = <P extends Part>(part: P, name: NameIn<P>): Rule => ({
  ...(CONFIGURATION_SETTINGS[part].table as Record<string, Setting>)[name],
  type: (CONFIGURATION_SETTINGS[part].table as Record<string, Setting>)[name]?.type ?? unchecked(),
  set: (to, value) => {
    const place = part === 'run' ? to : to[part as Exclude<P, 'run'>]
    ;(place as Record<string, unknown>)[name] = value
  },
})

/** Return rules for all settings of a part, with the names that `spelling` returns. */
export const all = (part: Part, spelling = (name: string) => name): Record<string, Rule> =>
  Object.fromEntries(
    CONFIGURATION_SETTINGS[part].names.map((name) => [spelling(name), into(part, name as NameIn<typeof part>)]),
  )
