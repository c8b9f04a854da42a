"""The words that a captured file may contain: no other word of a relay is written.

They are the words of HTTP and JSON APIs, of error messages, of states and of the fields of a task.
A word that is not here is replaced by a stand-in. So what is kept is decided here alone, and not by
guessing what may be secret.
"""

from luma_async.protocol.states import STATES
from luma_async.protocol.task_fields import CREATED_PATHS, LINK_PATHS, REASON_PATHS

_PLAIN = """
a about above accept accepted access account accounts action active additional admin advanced after
again age ak algorithm all allow allowed already amz an and another any api app application apr are
argument array artifact artifacts as aspect asset assets async at attachment attempt attempts audio
aug auth authentication authorization authorized auto automatic available avif away aws4 bad
balance base batch be bearer because been before begin being below between billing bit body bot
both br bucket busy but by bytes cache call callback calls can cannot canonical cap card case cdn
center certificate cf challenge change channel channels characters charset check choice choices
chunked cid class client close closed closing cloudflare code codes com completion conditions
connect connection console contact container content context control cookie correct cos cost could
count cover create created creation creations credential credentials credit credits css current
cursor custom daily data database date day days deadline debug dec default deflate delay deleted
denied deny description detail details device did digest direct disable disabled disallowed div do
doc docs doctype document does doesn domain done download downloads draft dream duration during
each edge element email empty en enable enabled encoding end endpoint engine enough entry env err
errcode errmsg errno error errors estimate etag event events exceed exceeded exception exhausted
exist existing exists expected expire expires expiresin expose extend extension extra failing
fallback feature feb fetch field fields file filename files filter finish first flag flags for
forbidden form format found fps frame free frequent frequently fri friday from frontend full
gateway generate generated generation generations get gid gif given global gmt good goog googleapis
grid group groups gzip h1 h2 h264 has have head header headers height hidden high hmac hook host
hour hours hr href html http https hub i2v id identity ids if illegal image images img in inactive
include incorrect index inference info initial inline input inputs insert insufficient int integer
internal into invalid io ip is issue it item items its jan javascript job jobs jpeg jpg js json jul
jun keep keep-alive key keys kind known label lang language last latency later lease left length
level li lifetime like liked limit limited limiter limits line link links list load local location
log login long loop low luma lumalabs m4v machine maintenance many mar match max max-age maximum
may maybe media memory menu message messages meta metadata method methods min minimum minute
minutes mirror missing missing-field mkv mode model models moderated moderation modified mon monday
month more mov moved mp4 msg msgs must name names need needed net network new new_api newapi next
nginx no node none normal noscript nosniff not notfound notify nov now null number object objects
occurred oct of off offset ok old on one oneapi only open openai operation option options or order
origin oss other out output outputs over overloaded own owner p pack page pages palette param
parameter parameters parent part parts passed password path pay payload payment pending per percent
period permission permissions permitted picture pid ping place plain plan platform play please png
point points policy port post poster powered pragma prediction preparing present preview previous
price priority private pro process processed processor progress prompt prompts provided provider
proxy public put quality quantity query queue quota quotas raise range ranges rate ratelimit rates
ratio raw ray ray1 ray2 reach reached read ready reason received record records redirect ref
reference referrer refresh refund refused region reject rel relay release remain remaining remote
remove removed replica req request requested requests require required requires reset resolution
resource resources resp respond responded response responses rest result results resume retcode
retry retryable return rid right role rotate route router row rows run safety same sameorigin
sampler sat saturated saturday save scale scheme scope score script search second seconds secret
security seed select self send sent sep seq sequence server servers service services session
sessions set settings sha256 share should sid sign signature signed signing since single size sk
slow so socket some soon sora source sources space span specified speed src sse ssl start started
state states status step steps still stop storage store stored stream strict string sts style
stylesheet sub subdomains submission submit success sun sunday svg svgz sys system t2v table tag
target task tasks temporarily temporary terms test text that the their them then there these they
thing this though thread throttle throttled through thu thumb thumbnail thursday time timed timeout
times timestamp timing title to token tokens too top tos total trace traffic transfer transport
trial try ts ttl tue tuesday two txt type types uid ul unable unauthorized unavailable under
unexpected unknown unprocessable unsigned unsupported until up update updated upgrade upload
uploads upstream uri url urls usage use used user users using utc utf utf8 uuid v1 v2 v3 valid
validation value values vary verify version via video videos view viewport vip wait waiting warning
was watermark way we web webhook webm webp website wed wednesday week well were what when where
whether which while width will window with without word work worker works world would write wrong x
year yes you your zh zip zone
"""
_CHINESE = """
无效 的 令牌 该 额度 已 用尽 不足 余额 用户 欠费 任务 不存在 未找到 找不到 没有找到 视频 生成
失败 成功 完成 处理 中 排队 等待 进行 系统 繁忙 请 稍后 再试 重试 当前 分组 上游 负载 饱和 频率
限流 请求 过于 太 频繁 无权 访问 模型 渠道 可用 不可用 错误 参数 超时 过期 失效 登录 未 提供
缺少 不正确 接口 路由 服务 服务器 内部 异常 审核 内容 违规 拒绝 取消 网络 连接 数据 查询 结果
状态 提交 提示词 图片 账户 账号 密钥 权限 禁止 维护 限制 超过 超出 最大 数量 无法 获取 创建 更新
时间 秒 后 次数 每 分钟 今日 暂 时 此
"""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


WORDS: frozenset[str] = frozenset(
    word
    for text in (_PLAIN, *STATES, *LINK_PATHS, *REASON_PATHS, *CREATED_PATHS)
    for part in text.replace(".", " ").replace("_", " ").split()
    for word in (part.lower(), *part.lower().split("-"))
)
CHINESE: tuple[str, ...] = tuple(sorted({*_CHINESE.split()}, key=lambda word: (-len(word), word)))
"""Chinese words that are kept, the longest first."""

PERSONAL_KEYS: frozenset[str] = _set("""
    prompt user_prompt negative_prompt prompts user username user_name nickname nick_name name
    display_name full_name first_name last_name owner author creator account email mail phone
    mobile address token key api_key apikey access_token secret password authorization cookie
    channel_name token_name group description caption title text notify_hook callback_url
""")
"""Keys whose values are replaced even if each word in them is known."""

NUMBER_KEYS: frozenset[str] = _set("""
    code status width height duration fps progress total page page_size pagesize per_page limit
    offset count size pages total_count total_pages n retry_after retryafter errno errcode
    retcode estimate_wait_seconds expires_in ttl percent seconds quality version
""")
"""Keys whose numbers are kept."""

TIME_KEYS: frozenset[str] = _set("""
    created_at createdat create_time createtime created submit_time submittime submitted_at
    updated_at updatedat update_time start_time starttime started_at finish_time finishtime
    finished_at completed_at end_time timestamp time ts server_time expires_at expired_at
""")
"""Keys whose values are times, which are kept."""

QUERY_KEYS: frozenset[str] = _set("""
    x-amz-expires x-amz-date x-amz-algorithm x-goog-expires x-goog-date x-goog-algorithm
    x-oss-expires x-oss-date x-tos-expires x-tos-date x-tos-algorithm x-cos-expires expires
    expire exp e se sv sp x-expires auth_expires
""")
"""Names in the query of a link whose times and algorithms are kept."""

HEADERS: frozenset[str] = _set("""
    content-type content-encoding retry-after retry-after-ms server cache-control vary
    accept-ranges date last-modified expires age allow content-language
""")
"""Headers whose values are kept where their words are known; x-ratelimit-* are, too."""
