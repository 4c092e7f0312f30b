use super::*;

fn reader(text: &'static str, options: &ReadOptions) -> Result<Reader<&'static [u8]>, TraceError> {
    Reader::new(text.as_bytes(), options)
}

fn read(text: &'static str, service: Option<&str>) -> Result<Vec<TraceRequest>, TraceError> {
    let service = service.map(|text| Service::formula(text).unwrap());
    reader(text, &ReadOptions { service, ..ReadOptions::default() })?.collect()
}

fn request(at: u64, service: u64) -> TraceRequest {
    TraceRequest { at, service, function: 0 }
}

#[test]
fn columns_constants_and_formulas() {
    let text = "t_s,context_tokens,generated_tokens\n0.5,800,10\n1.25,0,0\n";
    let formula = "0.05 + context_tokens/8000 + 0.02*generated_tokens";
    assert_eq!(read(text, Some(formula)).unwrap(), [request(500, 350), request(1_250, 50)]);
    assert_eq!(read(text, Some("7ms")).unwrap()[0], request(500, 7));
    assert_eq!(read("at_ms,service_ms\n3,4\n\n5,0\n", None).unwrap(), [request(3, 4), request(5, 1)]);
    assert_eq!(read("t_s,model,exec_s\n1,M,32\n", None).unwrap(), [request(1_000, 32_000)]);
    assert_eq!(read("t_s,model,exec_s\n1,\"a, b\",32\n", None).unwrap(), [request(1_000, 32_000)]);
    let exact = read("t_s,service_s\r\n0.0015,1e1\r\n123456789012.3456,2.\r\n", None).unwrap();
    assert_eq!(exact, [request(2, 10_000), request(123_456_789_012_346, 2_000)]);
}

#[test]
fn foreign_forms() {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n";
    let formula = Some("0.02*GeneratedTokens");
    assert_eq!(read(azure, formula).unwrap(), [request(0, 880), request(4_315, 2_180)]);
    let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1,100,101,API log\n";
    assert_eq!(read(burst, Some("0.01*Response_tokens")).unwrap(), [request(5_000, 180), request(45_000, 1_000)]);
    let mooncake = "{\"timestamp\": 27, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47]}\n{\"timestamp\": 3052, \"input_length\": 1, \"output_length\": 500, \"hash_ids\": []}\n";
    assert_eq!(read(mooncake, Some("0.01*output_length")).unwrap(), [request(27, 520), request(3_052, 5_000)]);
    // Sorted by end, as it is published.
    let functions = "app,func,end_timestamp,duration\na,f,10.0,1.0\nb,g,12.0,9.5\n";
    assert_eq!(read(functions, None).unwrap(), [request(0, 9_500), request(6_500, 1_000)]);
    let records = "[\n {\"id\": \"2\", \"at\": 1700000002000, \"function\": \"ocr\", \"queue_us\": 500000, \"total_us\": 2500000},\n {\"id\": \"1\", \"at\": 1700000000000, \"function\": \"ocr\", \"queue_us\": 0, \"total_us\": 40000}\n]\n";
    assert_eq!(read(records, None).unwrap(), [request(0, 40), request(2_000, 2_000)]);
    let tasks = "{\"tasks\": [{\"taskId\": \"a\", \"functionName\": \"ocr\", \"startedTime\": 5000, \"durationMs\": 70}, {\"taskId\": \"b\", \"functionName\": \"ocr\"}]}";
    let options = ReadOptions { form: Some(Form::Tasks), ..ReadOptions::default() };
    let read: Vec<_> = reader(tasks, &options).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(read, [request(0, 70)]);
}

#[test]
fn functions_are_kept_apart() {
    let options = ReadOptions { functions: Some(None), ..ReadOptions::default() };
    let mut trace = reader("t_s,model,exec_s\n1,M,32\n2,N,1\n3,M,1\n", &options).unwrap();
    let functions: Vec<u32> = trace.by_ref().map(|request| request.unwrap().function).collect();
    assert_eq!((functions, trace.functions()), (vec![0, 1, 0], vec!["M".to_owned(), "N".to_owned()]));
}

#[test]
fn arrivals_are_drawn_from_counts_and_rates_alike_for_a_seed() {
    let wide = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,a,f,http,2,0,1\no,a,g,timer,0,5,0\n";
    let draw = |text: &'static str, seed: u64| -> Vec<TraceRequest> {
        let (service, functions) = (Some(Service::Constant(100)), Some(None));
        let options = ReadOptions { service, functions, seed, ..ReadOptions::default() };
        reader(text, &options).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let drawn = draw(wide, 1);
    let by_minute = |requests: &[TraceRequest], minute: u64, function: u32| {
        requests.iter().filter(|request| request.at / 60_000 == minute && request.function == function).count()
    };
    assert_eq!([by_minute(&drawn, 0, 0), by_minute(&drawn, 1, 1), by_minute(&drawn, 2, 0)], [2, 5, 1]);
    assert!(drawn.is_sorted_by_key(|request| request.at));
    assert_eq!(draw("fn,minute,count\nf,0,2\nf,2,1\ng,1,5\n", 1), drawn, "the other form of the same");
    assert!(draw(wide, 1) == drawn && draw(wide, 2) != drawn);
    let rates = "t_s,client,rate,cv,dist\n0,0,10,1.0,Poisson\n0,1,1,2.0,Gamma\n600,0,2,1.5,Weibull\n";
    let drawn = draw(rates, 7);
    let (first, second) = (by_window(&drawn, 0), by_window(&drawn, 1));
    assert!((6_200..7_000).contains(&first) && (1_000..1_400).contains(&second), "{first} {second}");
    assert!(drawn.is_sorted_by_key(|request| request.at));

    fn by_window(requests: &[TraceRequest], window: u64) -> usize {
        requests.iter().filter(|request| request.at / 600_000 == window).count()
    }
}

#[test]
fn durations_come_from_a_file_of_quantiles() {
    let file =
        "HashFunction,Average,percentile_Average_0,percentile_Average_50,percentile_Average_100\nf,9,1000,1000,1000\n";
    let durations = Some(Durations::read(file.as_bytes()).unwrap());
    let options = ReadOptions { durations, ..ReadOptions::default() };
    let read: Vec<_> = reader("fn,minute,count\nf,0,2\n", &options).unwrap().map(|r| r.unwrap().service).collect();
    assert_eq!(read, [1_000, 1_000]);
    let error = reader("fn,minute,count\nf,0,2\ng,0,1\n", &options).unwrap_err().to_string();
    assert!(error.contains("line 3: `g` in column `fn`"), "{error}");
}

#[test]
fn what_is_wrong_is_named() {
    let says = |text: &'static str, part: &str| {
        let error = read(text, None).unwrap_err().to_string();
        assert!(error.contains(part), "`{part}` is not in: {error}");
    };
    says("", "no requests");
    says("x,service_s\n", "no column `t_s`; its columns are: x, service_s");
    says("t_s,y\n", "no column `service_s`");
    says("t_s,service_s\n-1,2\n", "line 2: `-1` in column `t_s` is not a number of 0 or more");
    says("t_s,service_s\n1,2\n1,x\n", "line 3: `x` in column `service_s`");
    says("t_s,service_s\n1,2\n1\n", "line 3: `` in column `service_s`");
    says("t_s,service_s\n2,2\n1,2\n", "line 3: the request arrives 1000 ms before");
    says("1,2\n2,2\n", "the form of the trace is not known");
    says("TIMESTAMP,ContextTokens,GeneratedTokens\n", "of the form azure-llm does not say how long requests take");
    says("t_s,client,rate,cv,dist\n", "of the form servegen does not say how long");
    says("{\"timestamp\": 1, \"x\": 2}\n", "the form of the trace is not known; its columns are: timestamp, x");
    let azure = read("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16,1,1\nnever,1,1\n", Some("1s")).unwrap_err();
    assert!(azure.to_string().contains("line 3: `never` in column `TIMESTAMP` is not a date"), "{azure}");
    assert!("azure".parse::<Form>().is_err_and(|error| error.contains("azure-llm, azure-functions")));
}
