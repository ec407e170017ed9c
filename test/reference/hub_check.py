"""Has Python's huggingface_hub and resolveModel share a cache, in both directions.

    python test/reference/hub_check.py [MODULE]     MODULE exports resolveModel; default dist/index.js

Prints (huggingface_hub 2.4.0):
    Python finds what we fetched: ok
    Python online fetches nothing of it again: ok
    we find what Python fetched: ok
    online we fetch nothing of it again: ok
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ['config.json', 'model.safetensors', 'vocab.json']
PYTHON = """
import sys
from huggingface_hub import hf_hub_download, snapshot_download, scan_cache_dir
offline = sys.argv[1] == 'offline'
print(snapshot_download('org/tiny', allow_patterns=['*.json', '*.safetensors'], local_files_only=offline))
print(hf_hub_download('org/tiny', 'model.safetensors', local_files_only=offline))
report = scan_cache_dir()
assert not report.warnings, report.warnings
assert [repo.repo_id for repo in report.repos] == ['org/tiny'], report
assert [sorted(revision.refs) for revision in list(report.repos)[0].revisions] == [['main']], report
"""


def run(command, cache, endpoint):
    env = {k: v for k, v in os.environ.items() if not k.startswith(('HF_', 'HUGGING'))}
    env |= {'HF_HUB_CACHE': str(cache), 'HF_HOME': str(cache / 'home'), 'HF_ENDPOINT': endpoint, 'HF_HUB_DISABLE_XET': '1'}
    done = subprocess.run(command, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


def main():
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    server = subprocess.Popen(
        ['node', '--import', 'tsx', str(ROOT / 'test/hub/server.ts')],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    endpoint = server.stdout.readline().strip()

    def contents_asked():
        server.stdin.write('seen\n')
        server.stdin.flush()
        seen = json.loads(server.stdout.readline())
        return sorted({e['path'].split('/')[-1] for e in seen if e['method'] == 'GET' and not e['path'].startswith('/api')})

    def ours(cache, offline=False):
        options = json.dumps({'offline': offline})
        return run(['node', str(ROOT / 'test/hub/fetch.mjs'), module.as_uri(), 'org/tiny', options], cache, endpoint)

    def theirs(cache, mode):
        return run([sys.executable, '-c', PYTHON, mode], cache, endpoint)

    try:
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder)
            [snapshot] = ours(cache)
            assert contents_asked() == FILES
            assert theirs(cache, 'offline') == [snapshot, f'{snapshot}/model.safetensors']
            print('Python finds what we fetched: ok')
            assert theirs(cache, 'online')[0] == snapshot
            assert contents_asked() == []
            print('Python online fetches nothing of it again: ok')
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder)
            snapshot = theirs(cache, 'online')[0]
            assert contents_asked() == FILES
            assert ours(cache, offline=True) == [snapshot]
            print('we find what Python fetched: ok')
            assert ours(cache) == [snapshot]
            assert contents_asked() == []
            print('online we fetch nothing of it again: ok')
    finally:
        server.stdin.close()
        server.wait(10)


main()
