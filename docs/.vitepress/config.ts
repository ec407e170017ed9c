import { existsSync, readFileSync } from 'node:fs'
import { defineConfig } from 'vitepress'

const file = new URL('../api/typedoc-sidebar.json', import.meta.url)
const reference = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : []
const page = (text: string, link: string) => ({ text, link })

const guide = [
  {
    text: 'Guide',
    items: [
      page('Install', '/guide/install'),
      page('See it work', '/guide/demo'),
      page('Pipelines', '/guide/pipelines'),
      page('Tensors', '/guide/tensors'),
      page('Memory', '/guide/memory'),
      page('Threads and promises', '/guide/threads'),
      page('Training', '/guide/training'),
      page('Published networks', '/guide/networks'),
      page('LoRA and packed weights', '/guide/lora'),
      page('Files, audio and text', '/guide/files'),
      page('Serve', '/guide/serve'),
      page('CUDA', '/guide/cuda'),
      page('From PyTorch', '/guide/from-pytorch'),
    ],
  },
  { text: 'Systems', items: [page('SPECTRA', '/systems/spectra'), page('SALMONN', '/systems/salmonn')] },
  {
    text: 'More',
    items: [page('Commands', '/cli'), page('Reference', '/api/'), page('Performance', '/performance')],
  },
]

// biome-ignore lint/style/noDefaultExport: what vitepress reads
export default defineConfig({
  title: 'voxtorch',
  description: 'Speech and text models natively on libtorch, in TypeScript',
  srcExclude: ['node_modules/**'],
  cleanUrls: true,
  metaChunk: true,
  vite: { build: { chunkSizeWarningLimit: 20_000 } },
  themeConfig: {
    nav: [
      page('Guide', '/guide/install'),
      page('SPECTRA', '/systems/spectra'),
      page('SALMONN', '/systems/salmonn'),
      page('Commands', '/cli'),
      page('Reference', '/api/'),
    ],
    sidebar: { '/api/': [page('Guide', '/guide/install'), ...reference], '/': guide },
    outline: { level: [2, 3] },
    search: { provider: 'local' },
    socialLinks: [{ icon: 'github', link: 'https://github.com/voxtorch/voxtorch' }],
  },
})
